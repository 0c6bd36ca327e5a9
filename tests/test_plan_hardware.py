"""Hardware by name, the roofline of a step, and what devices cost."""

import dataclasses

import pytest
import torch

from dragoman.errors import ConfigError
from dragoman.plan.duration import PRODUCTS, STREAMS, bill, predict
from dragoman.plan.hardware import HARDWARE, Cluster, parse
from dragoman.plan.operation import Operation


@pytest.mark.parametrize(
    ("name", "device", "count"),
    [
        ("h100x8", "h100", 8),
        ("a100-40gx1024", "a100-40g", 1024),
        ("A100-40GBx2", "a100-40g", 2),
        ("v100", "v100", 1),
        ("rtx3090", "rtx3090", 1),  # the x of its name is no number of devices
        ("rtx3090x2", "rtx3090", 2),
        ("8xh100", "h100", 8),
        ("NVIDIA-L40S", "l40s", 1),
        ("a100", "a100-80g", 1),
        ("tpu_v4x6144", "tpu-v4", 6144),
        ("m1maxx2", "m1-max", 2),
    ],
)
def test_devices_are_found_by_the_names_that_people_write(name, device, count):
    found = parse(name)
    assert (found.device.name, found.count) == (device, count)
    assert parse(found.name) == found


@pytest.mark.parametrize("name", ["h1000", "hundred", "h100x0", "x", "x8", "", "0", "a100x"])
def test_an_unknown_device_is_refused_in_one_line(name):
    with pytest.raises(ConfigError, match=r"^--hardware: ") as error:
        parse(name)
    assert "\n" not in str(error.value)


def test_a_likely_name_is_suggested():
    with pytest.raises(ConfigError, match=r"Did you mean 'h100'\?"):
        parse("h10x8")


@pytest.mark.parametrize("row", HARDWARE.values(), ids=HARDWARE)
def test_every_row_has_its_source_and_its_date(row):
    assert row.source and len(row.date) == 7
    assert row.price is None or row.price_source
    assert row.bandwidth > 1e9 and row.memory > 1e9 and row.speed("float32") > 1e12


def test_a_precision_that_a_device_has_no_units_for_is_computed_in_another():
    v100, p100 = HARDWARE["v100"], HARDWARE["p100"]
    assert v100.speed("bfloat16") == v100.speed("float16") == 125e12
    assert p100.speed("int8") == p100.speed("float16")
    assert HARDWARE["m1"].speed("bfloat16") == HARDWARE["m1"].speed("float32")
    assert HARDWARE["h100"].speed("float8") > HARDWARE["h100"].speed("bfloat16")


# ---- the roofline -----------------------------------------------------------------------------------


def product(rows: int, width: int, calls: int = 1) -> Operation:
    flops, moved = 2 * rows * width**2, 2 * (2 * rows * width + width**2)
    shapes = ((rows, width), (width, width))
    return Operation("aten.mm", "feed_forward", False, shapes, torch.bfloat16, flops, moved, calls)


def test_more_rows_and_more_width_never_take_less_time():
    device = HARDWARE["a100-40g"]
    times = [predict([product(rows, 512)], device).seconds for rows in (1, 8, 64, 512, 4096, 32_768)]
    assert times == sorted(times) and times[-1] > times[0]
    widths = [predict([product(256, width)], device).seconds for width in (16, 64, 256, 1024, 4096)]
    assert widths == sorted(widths) and widths[-1] > widths[0]


def test_small_products_wait_for_their_start_flat_ones_for_memory_and_large_ones_for_the_units():
    device = HARDWARE["h100"]
    small, flat, large = product(1, 16), product(1, 16_384), product(8192, 8192)
    assert [predict([op], device).seconds for op in (small, flat, large)] == pytest.approx(
        [
            device.launch,
            flat.bytes_moved / (STREAMS * device.bandwidth),
            large.flops / (PRODUCTS * device.speed("bfloat16")),
        ]
    )


def test_no_step_is_faster_than_its_flops_at_the_peak_nor_than_its_bytes_at_the_bandwidth():
    device, operations = HARDWARE["l4"], [product(4096, 1024, calls=12), product(1, 4096, calls=3)]
    found = predict(operations, device)
    assert found.utilisation < 1
    assert found.seconds >= sum(op.calls * op.bytes_moved for op in operations) / device.bandwidth
    assert sum(found.by_part.values()) == pytest.approx(found.seconds)


def test_a_stated_utilisation_gives_the_time_of_the_flops_at_that_share_of_the_peak():
    found = predict([product(64, 64)], HARDWARE["a100-40g"], mfu=0.45)
    assert found.seconds == pytest.approx(2 * 64**3 / (0.45 * 312e12))
    assert found.utilisation == pytest.approx(0.45)


def test_a_step_without_operations_takes_no_time():
    assert predict([], HARDWARE["t4"], mfu=0.4).seconds == 0


def test_the_bill_is_hours_times_power_and_price():
    cluster = Cluster(HARDWARE["a100-40g"], 1024)
    found = bill(3600.0 * 24, cluster, price=2.0)
    assert found.device_hours == 24 * 1024
    assert found.kwh == pytest.approx(24 * 1024 * 0.4)
    assert found.dollars == 2 * 24 * 1024
    assert bill(3600.0, Cluster(HARDWARE["p100"])).dollars is None
    assert bill(3600.0, Cluster(dataclasses.replace(HARDWARE["p100"], watts=None))).kwh is None
