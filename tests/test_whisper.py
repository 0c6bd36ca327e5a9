"""Whisper's folders: the same numbers from the same sound as in their own library, and the same text."""

import itertools
import json
import math
import shutil
import struct
import wave

import foreign_speech
import numpy as np
import pytest
import torch

import dragoman
from dragoman.checkpoint import load_model
from dragoman.cli import main
from dragoman.data.log_mel import LogMel
from dragoman.data.wave_files import read_wave
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.coverage import CoveringBeam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import walk
from dragoman.decode.search.speculative import Speculative
from dragoman.decode.transcriber import Transcriber
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.importing import import_notes
from dragoman.model.inputs import FrameConvolution, FrameInput
from dragoman.model.positions.tokens import Frames
from dragoman.text.tokens.tokenizer import BOS

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

RATE = 16_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return foreign_speech.Made(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return foreign_speech.Made(tmp_path_factory.mktemp("other"), 1, begin_suppress_tokens=None, num_beams=2)


@pytest.mark.parametrize("cached", [False, True], ids=["at once", "token by token"])
@pytest.mark.parametrize("size", [0, 1])
def test_logits_are_theirs(made, other, size, cached):
    assert max((made, other)[size].logit_errors(2, cached=cached)) < 1e-5


@pytest.mark.parametrize("size", [0, 1])
def test_it_comes_back_to_the_bit(made, other, size, tmp_path):
    assert (made, other)[size].comes_back(tmp_path)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"language": "de"}, {"language": "fr", "task": "translate"}, {"task": "translate"}]
)
def test_texts_are_those_of_generate(made, beams, options):
    same, ended = made.identical(beams, 3, **options)
    assert same == ended


def test_some_of_these_texts_end_and_say_something(made):
    assert made.identical(1, 4)[1]
    transcriber = Transcriber.load(made.run, precision="float32")
    for one in transcriber.transcribe([foreign_speech.speech(1, 100)], beam=1, max_new_tokens=8):
        said, _ = made.says(foreign_speech.speech(1, 100), num_beams=1)
        assert one.text and said.replace("\ufffd", "").strip().startswith(one.text)


def test_the_folders_own_search_holds_where_none_is_chosen(other):
    transcriber, speech = Transcriber.load(other.run, precision="float32"), [foreign_speech.speech(1, 7)]
    own, chosen = (transcriber.transcribe(speech, beam=beam, max_new_tokens=9)[0] for beam in (None, 2))
    assert own.tokens == chosen.tokens


def test_a_run_of_speech_says_its_task_and_loads_a_transcriber(made):
    run = dragoman.Run(made.run)
    assert run.task == "speech recognition" and "speech recognition" in repr(run) + run._repr_html_()
    speech = [foreign_speech.speech(1, 7)]
    loaded = run.transcriber(precision="float32").transcribe(speech, max_new_tokens=5)
    assert (
        loaded[0].tokens
        == Transcriber.load(made.run, precision="float32").transcribe(speech, max_new_tokens=5)[0].tokens
    )


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    """Return a folder as the first ones were: what a text begins with is in forced_decoder_ids."""
    path = tmp_path_factory.mktemp("english")
    return foreign_speech.Made(
        path, lang_to_id=None, task_to_id=None, is_multilingual=False, forced_decoder_ids=[[1, 11]]
    )


def test_forced_decoder_ids_begin_a_text_where_nothing_is_chosen(made, english, tmp_path):
    ids = json.loads((made.folder / "generation_config.json").read_text())
    forced = [[1, None], [2, ids["task_to_id"]["translate"]]]
    shutil.copytree(made.run, tmp_path / "run", symlinks=True)
    path = tmp_path / "run" / "origin" / "generation_config.json"
    path.write_text(json.dumps(ids | {"forced_decoder_ids": forced}))
    speech = [foreign_speech.speech(1, 100)]
    heard = Transcriber.load(tmp_path / "run").transcribe(speech, max_new_tokens=2)[0]
    named = Transcriber.load(made.run).transcribe(speech, language=heard.language, task="translate", max_new_tokens=2)[
        0
    ]
    assert heard.prompt == named.prompt and len(heard.prompt) == 4
    alone = Transcriber.load(english.run).transcribe(speech, max_new_tokens=2)[0]
    assert alone.language is None and len(alone.prompt) == 3
    with pytest.raises(ConfigError, match="it hears one language"):
        Transcriber.load(english.run).transcribe(speech, language="en")
    with pytest.raises(ConfigError, match="it only transcribes"):
        Transcriber.load(english.run).transcribe(speech, task="translate")


def test_unknown_languages_and_tasks_are_refused(made):
    transcriber = Transcriber.load(made.run)
    with pytest.raises(ConfigError, match=r"--language: no 'xx' here. Known: de, en, fr"):
        transcriber.transcribe([], language="xx")
    with pytest.raises(ConfigError, match=r"--task: no 'sing' here. Known: transcribe, translate"):
        transcriber.transcribe([], task="sing")


# ---- sound -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("seconds", [0.0, 0.01, 1.3, 30.0])
def test_log_mel_frames_are_theirs(bands, seconds):
    samples = foreign_speech.speech(seconds, 3)
    extractor = transformers.WhisperFeatureExtractor(feature_size=bands)
    wanted = extractor(samples, sampling_rate=RATE).input_features[0].T if len(samples) else None
    [found] = LogMel(bands=bands).windows(samples, 3000)
    assert found.shape == (3000, bands)
    if wanted is not None:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def write_wave(path, samples, *, width=2, channels=1, rate=RATE):
    whole = np.round(np.repeat(samples[:, None], channels, axis=1) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    raw = (whole + 128).astype(np.uint8).tobytes() if width == 1 else (
        whole.astype("<i8").view(np.uint8).reshape(*whole.shape, 8)[..., :width].tobytes()
    )  # fmt: skip
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return path


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wave_files_of_all_widths_and_channels_are_read(width, channels, tmp_path):
    samples = foreign_speech.speech(0.05)
    found = read_wave(write_wave(tmp_path / "a.wav", samples, width=width, channels=channels), RATE)
    np.testing.assert_allclose(found, samples, atol=2.0 ** (2 - 8 * width) + 1e-6)


PCM = bytes.fromhex("0100000000001000800000aa00389b71")
FLOATS = b"\3" + PCM[1:]


def wave_bytes(*, tag=1, channels=1, bits=16, step=None, extra=b"", size=None, count=800, before=b""):
    """Return the bytes of a WAV file of the samples 0, 1, 2, ... with any header."""
    data = np.arange(count * channels).astype("<i2").tobytes()
    step = channels * bits // 8 if step is None else step
    header = struct.pack("<HHIIHH", tag, channels, RATE, RATE * step, step, bits) + extra
    stated = struct.pack("<I", len(data) if size is None else size)
    body = b"WAVEfmt " + struct.pack("<I", len(header)) + header + before + b"data" + stated + data
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def extensible(subformat):
    return {"tag": 0xFFFE, "extra": struct.pack("<HHI", 22, 16, 4) + subformat}


@pytest.mark.parametrize(
    "header",
    [
        {},
        extensible(PCM),
        {"size": 0xFFFFFFFF},
        {"size": 0x7FFFF000},
        {"before": b"LIST\3\0\0\0abc\0"},
        extensible(PCM) | {"size": 0xFFFFFFFF, "before": b"LIST\4\0\0\0abcd"},
    ],
    ids=["plain", "extensible", "ffmpeg to a pipe", "SoX to a pipe", "an odd chunk", "all of it"],
)
def test_wave_files_are_read_whatever_their_header(header, tmp_path):
    (tmp_path / "a.wav").write_bytes(wave_bytes(**header))
    np.testing.assert_array_equal(read_wave(tmp_path / "a.wav", RATE), np.arange(800, dtype=np.float32) / 2**15)


def _of(content):
    return lambda path: path.write_bytes(content)


def _cut_off(path):
    write_wave(path, foreign_speech.speech(0.05))
    path.write_bytes(path.read_bytes()[:-200])


FAULTS = {
    "another format": (_of(b"fLaC" + b"\0" * 60), "not a WAV file of whole numbers.*ffmpeg"),
    "an empty file": (_of(b""), "not a WAV file.*ends too early"),
    "float samples": (_of(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x03\0\1\0\x80\x3e\0\0\0\xfa\0\0\4\0\x20\0data\0\0\0\0"),
                      "not a WAV file of whole numbers"),
    "floats, extensible": (_of(wave_bytes(**extensible(FLOATS))), r"whole numbers \(floats\): convert it"),
    "another subformat": (_of(wave_bytes(**extensible(b"x" * 16))), r"whole numbers \(format 65534\): convert it"),
    "mu-law": (_of(wave_bytes(tag=7)), r"whole numbers \(mu-law\): convert it"),
    "64 bits": (_of(wave_bytes(bits=64)), r"whole numbers \(samples of 64 bits\): convert it"),
    "no bits": (_of(wave_bytes(bits=0)), r"whole numbers \(samples of 0 bits\): convert it"),
    "no channels": (_of(wave_bytes(channels=0)), r"whole numbers \(0 channels of 16 bits in 0 bytes\): convert it"),
    "24 bits in 4 bytes": (_of(wave_bytes(bits=24, step=4)), r"\(1 channels of 24 bits in 4 bytes\): convert it"),
    "a pipe that breaks": (_of(wave_bytes(size=0xFFFFFFFF)[:-1]), "the file is cut off"),
    "half a header": (_of(wave_bytes()[:30]), r"ends too early\): convert it"),
    "another rate": (lambda p: write_wave(p, foreign_speech.speech(0.05), rate=44_100), "44100 samples a second"),
    "a file that is cut off": (_cut_off, "cut off"),
    "no file": (lambda path: None, "no such file"),
    "a folder": (lambda path: path.mkdir(), "cannot be read|not a WAV"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_wave_file_is_refused_in_a_line(fault, tmp_path):
    make, said = FAULTS[fault]
    make(tmp_path / "a.wav")
    with pytest.raises(DataError, match=said):
        read_wave(tmp_path / "a.wav", RATE)


def test_samples_that_are_no_numbers_are_refused(made, recwarn):
    transcriber = Transcriber.load(made.run)
    for bad in (np.array([0.0, np.nan]), np.full(9, 1e300), np.zeros((2, 3)), np.zeros(4, np.int16)):
        with pytest.raises(DataError, match="recording 1: expected one row of finite float samples"):
            transcriber.transcribe([bad])
    assert not recwarn.list


# ---- the command -----------------------------------------------------------------------------------


def test_the_command_writes_a_line_for_each_file(made, tmp_path, capsys):
    files = [str(write_wave(tmp_path / f"{i}.wav", foreign_speech.speech(s, i))) for i, s in enumerate((0.4, 2.5))]
    options = ["--language", "de", "--max-new-tokens", "5", "--precision", "float32"]
    assert main(["transcribe", str(made.run), *files, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["transcribe", str(made.run), *files, *options, "--format", "json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == lines
    assert [(row["language"], row["seconds"], len(row["windows"])) for row in rows] == [("de", 0.4, 1), ("de", 2.5, 3)]


def test_a_recording_is_heard_alike_alone_and_among_others(made):
    transcriber = Transcriber.load(made.run, precision="float32")
    some = [foreign_speech.speech(1, seed) for seed in range(10)]
    together = transcriber.transcribe(some, language="en", max_new_tokens=6)
    assert [transcriber.transcribe([one], language="en", max_new_tokens=6)[0].tokens for one in some[:3]] == [
        one.tokens for one in together[:3]
    ]
    assert transcriber.transcribe([]) == []


SAME = {
    "speculative": (Greedy(), Speculative()),
    "speculative sample": (Sample(seed=3), Speculative(search=Sample(seed=3))),
    "covering": (Beam(size=3), CoveringBeam(size=3, beta=0.0)),
    "diverse": (Beam(size=3), DiverseBeam(size=3, nbest=1, groups=1)),
}


@pytest.mark.parametrize("pair", SAME)
def test_searches_that_equal_another_do_so_on_speech(made, pair):
    transcriber, some = Transcriber.load(made.run, precision="float32"), [foreign_speech.speech(2, n) for n in range(3)]
    plain, other = (transcriber.transcribe(some, search=cfg, max_new_tokens=8) for cfg in SAME[pair])
    assert [one.tokens for one in other] == [one.tokens for one in plain]


def test_minimum_bayes_risk_takes_the_sample_that_all_others_resemble_most(made):
    transcriber, sampling = Transcriber.load(made.run, precision="float32"), Sample(samples=12, temperature=0.7)
    cfg = MinimumBayesRisk(sampling=sampling)
    speech = foreign_speech.speech(1, 3)
    [heard] = transcriber.transcribe([speech], search=cfg, max_new_tokens=8)
    window = torch.from_numpy(transcriber.log_mel.windows(speech, transcriber.frames))
    [samples] = transcriber._hypotheses(window, torch.tensor([heard.prompt]), sampling, 8, 0)
    texts = [transcriber._candidate(one).text for one in samples]
    utility = cfg.utility.between(texts).sum(axis=1)
    assert utility[texts.index(heard.text)] == pytest.approx(utility.max())
    assert heard.text != texts[0], "which is the most probable one"


def test_a_covering_beam_asks_for_attention_to_every_frame(made):
    model = Transcriber.load(made.run, precision="float32").model
    frames, prompt = torch.randn(2, 100, 80).clamp(-1, 1), torch.tensor([[BOS, 5, 6]] * 2)
    frames = frames[..., : model.cfg.source.channels]
    cfg = CoveringBeam(size=2, beta=1.0)
    strategy = cfg.start([6, 6], torch.device("cpu"))
    for _ in itertools.islice(walk(model, frames, prompt, cfg, strategy), 3):
        pass
    heard = 100 // math.prod(one.stride for one in model.cfg.source.convolutions)
    assert strategy.attention.shape == (2, 2, heard) and strategy.source.all()
    torch.testing.assert_close(strategy.attention.sum(dim=2), torch.full((2, 2), 3.0))


@pytest.mark.parametrize("command", ["translate", "generate", "embed"])
def test_other_commands_name_the_one_for_it(made, command, capsys):
    assert main([command, str(made.run), "hello"]) == 2
    assert "use `dragoman transcribe`" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["ctranslate2", "onnx", "gguf"])
def test_formats_that_hold_no_speech_refuse_it_in_a_line(made, layout, tmp_path, capsys):
    assert main(["export", str(made.run), "--to", layout, "-o", str(tmp_path / "out")]) == 2
    assert "\n" not in capsys.readouterr().err.strip()
    assert not (tmp_path / "out").exists()


def test_it_is_written_anew_and_opened_by_their_class(made, tmp_path, monkeypatch):
    from dragoman.interchange import exporting

    monkeypatch.setattr(exporting, "_is_as_it_came", lambda *_: False)
    assert export_huggingface(made.run, tmp_path / "anew") == "whisper"
    model = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "anew")
    for name in ("preprocessor_config.json", "generation_config.json"):
        theirs, found = (json.loads((folder / name).read_text()) for folder in (made.folder, tmp_path / "anew"))
        for key, value in theirs.items():
            if key == "suppress_tokens":
                assert set(found[key]) >= set(value)
            elif key != "bos_token_id":
                assert found[key] == value, key
    assert all(torch.equal(value, made.model.state_dict()[name]) for name, value in model.state_dict().items())


def test_an_older_folder_without_tokenizer_json_is_read_alike(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "folder")
    content = json.loads((tmp_path / "folder" / "tokenizer.json").read_text())
    (tmp_path / "folder" / "tokenizer.json").unlink()
    merges = "\n".join(merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"])
    older = {
        "vocab.json": json.dumps(content["model"]["vocab"]),
        "merges.txt": "#version: 0.2\n" + merges,
        "added_tokens.json": json.dumps({token["content"]: token["id"] for token in content["added_tokens"]}),
        "special_tokens_map.json": json.dumps({"eos_token": "<|endoftext|>", "additional_special_tokens": ["<|en|>"]}),
    }
    for name, text in older.items():
        (tmp_path / "folder" / name).write_text(text)
    foreign_speech.import_checkpoint(tmp_path / "folder", tmp_path / "run")
    speech = [foreign_speech.speech(1, 100)]
    ours, again = (Transcriber.load(run).transcribe(speech, beam=1)[0] for run in (made.run, tmp_path / "run"))
    assert (ours.tokens, ours.prompt, ours.text) == (again.tokens, again.prompt, again.text)


def test_a_second_copy_of_the_tied_matrix_is_known(made, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(made.folder, tmp_path / "folder")
    tensors = load_file(tmp_path / "folder" / "model.safetensors")
    copy = tensors["model.decoder.embed_tokens.weight"].clone()
    save_file(tensors | {"proj_out.weight": copy}, tmp_path / "folder" / "model.safetensors")
    foreign_speech.import_checkpoint(tmp_path / "folder", tmp_path / "run")
    save_file(tensors | {"proj_out.weight": copy + 1}, tmp_path / "folder" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"proj_out.weight, for which the model of config.json has no place"):
        foreign_speech.import_checkpoint(tmp_path / "folder", tmp_path / "other")


def test_nothing_that_is_obeyed_is_said_not_to_be(made):
    assert not import_notes(foreign_speech.foreign.RunDirectory.open(made.run))


# ---- the part of the model ---------------------------------------------------------------------------


def test_convolutions_hear_the_same_whatever_padding_stands_beside():
    cfg = FrameInput(channels=3, convolutions=(FrameConvolution(), FrameConvolution(kernel=5, stride=2)))
    torch.manual_seed(0)
    reader, frames = cfg.build(8).double(), torch.randn(1, 7, 3, dtype=torch.float64)
    alone, _ = reader.read(frames)
    for before, after in ((0, 4), (3, 0), (1, 2)):
        values = torch.nn.functional.pad(frames, (0, 0, before, after), value=9.0)
        keep = torch.zeros(1, 7 + before + after, dtype=torch.bool)
        keep[:, before : before + 7] = True
        x, positions = reader.read(Frames(values, keep))
        assert positions.keep is not None and int(positions.keep.sum()) == 4
        torch.testing.assert_close(x[positions.keep], alone[0])


def test_convolutions_are_those_of_torch():
    cfg = FrameInput(channels=3, convolutions=(FrameConvolution(activation="relu"),), bias=False)
    reader, frames = cfg.build(4), torch.randn(2, 5, 3)
    weight = reader.get_parameter("convolutions.0.weight")
    wanted = torch.nn.functional.conv1d(frames.transpose(1, 2), weight, padding=1).relu().transpose(1, 2)
    torch.testing.assert_close(reader.read(frames)[0], wanted)


def test_a_convolution_without_a_middle_frame_is_refused():
    with pytest.raises(ConfigError, match=r"convolutions.0.kernel: 4 has no middle frame"):
        FrameInput(channels=3, convolutions=(FrameConvolution(kernel=4),)).build(8)


def test_a_bias_of_keys_changes_nothing(made):
    model, _, _ = load_model(made.run)
    ids, frames = torch.tensor([[1, 7, 9]]), torch.randn(1, 100, 16)
    before = model(ids, frames)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".k.bias"):
                assert not parameter.any()
                parameter.normal_()
    torch.testing.assert_close(model(ids, frames), before, rtol=0, atol=1e-5)


def _broken(name, **changes):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _features(**changes):
    return _broken("preprocessor_config.json", **changes)


def _generation(**changes):
    return _broken("generation_config.json", **changes)


SETTINGS = {
    "features that are normalized": (_features(do_normalize=True), ConfigError, "do_normalize"),
    "features of another size": (_features(feature_size=9), ConfigError, "feature_size: 9 bands"),
    "a size that is none": (_features(n_fft="x"), ConfigError, "n_fft: expected a whole number"),
    "another extractor": (
        _features(feature_extractor_type="Wav2Vec2FeatureExtractor"), ConfigError, "no 'Wav2Vec2",
    ),
    "an id outside": (_generation(no_timestamps_token_id=9999), CheckpointError, "expected the id"),
    "languages that are none": (_generation(lang_to_id=7), CheckpointError, "mend the file"),
    "forced ids with a gap": (
        _generation(forced_decoder_ids=[[1, 3], [3, 4]]), CheckpointError, "forced_decoder_ids",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_cannot_be_obeyed_are_named(made, name, tmp_path):
    change, kind, said = SETTINGS[name]
    shutil.copytree(made.run, tmp_path / "run", symlinks=True)
    change(tmp_path / "run" / "origin")
    with pytest.raises(kind, match=said):
        Transcriber.load(tmp_path / "run")
