"""A small file of each format that is translated in place: what is translated in it, and how it looks filled.

The fake translation is the text in capitals, its placeholders as they are, into Polish: one, few, many, other.
"""

from typing import NamedTuple

from dragoman.text.document import FillableDocument, Filling, Slot
from dragoman.text.filled.opening import document_of
from dragoman.text.placeholders import find_placeholders


class Sample(NamedTuple):
    name: str
    before: str
    after: str


def capitals(slot: Slot) -> str:
    """Return a slot's text in capitals, its placeholders as they are."""
    parts, at = [], 0
    for found in find_placeholders(slot.text, slot.codes):
        parts += [slot.text[at : found.start].upper(), found.text]
        at = found.end
    return "".join([*parts, slot.text[at:].upper()])


def opened(name: str, raw: str | bytes, source: str | None = "en", target: str | None = "pl") -> FillableDocument:
    content = raw.encode() if isinstance(raw, str) else raw
    return document_of(lambda: content, name, kind="." + name.rpartition(".")[2], source=source, target=target)


def filled(document: FillableDocument) -> bytes:
    return document.fill({i: Filling(capitals(slot)) for i, slot in enumerate(document.slots)})


JSON = Sample(
    "en.json",
    '{\n  "title": "Hello \\"{name}\\"",\n  "n": [1, null, "two"],\n  "item_one": "{{count}} item",\n'
    '  "item_other": "{{count}} items",\n  "deep": {"files": {"one": "a file", "other": "files"}}\n}\n',
    '{\n  "title": "HELLO \\"{name}\\"",\n  "n": [1, null, "TWO"],\n  "item_one": "{{count}} ITEM",\n'
    '  "item_other": "{{count}} ITEMS",\n  "item_few": "{{count}} ITEMS",\n  "item_many": "{{count}} ITEMS",\n'
    '  "deep": {"files": {"one": "A FILE", "other": "FILES", "few": "FILES", "many": "FILES"}}\n}\n',
)
CHROME = Sample(
    "messages.json",
    '{"hi": {"message": "Hello $NAME$", "description": "A greeting", "placeholders": {"name": {"content": "$1"}}}}',
    '{"hi": {"message": "HELLO $NAME$", "description": "A greeting", "placeholders": {"name": {"content": "$1"}}}}',
)
ARB = Sample(
    "app_en.arb",
    '{"@@locale": "en", "n": "You have {n, plural, =0{none} one{# file} other{# files}}.", "@n": {"description": "x"}}',
    '{"@@locale": "pl", "n": "{n, plural, =0{YOU HAVE NONE.} one{YOU HAVE # FILE.} few{YOU HAVE # FILES.} '
    'many{YOU HAVE # FILES.} other{YOU HAVE # FILES.}}", "@n": {"description": "x"}}',
)
ANDROID = Sample(
    "strings.xml",
    """<?xml version="1.0" encoding="utf-8"?>
<resources xmlns:xliff="urn:oasis:names:tc:xliff:document:1.2">
    <!-- kept -->
    <string name="a">Don\\'t <b>go</b> to <xliff:g id="x">%1$s</xliff:g> &amp; stay\\nhere</string>
    <string name="b" translatable="false">kept</string>
    <string name="c">"It's  here"</string>
    <string name="d"><![CDATA[<a href="x">It\\'s a link</a>]]></string>
    <string name="e">@string/a</string>
    <string-array name="f"><item>one</item><item>two</item></string-array>
    <plurals name="g">
        <item quantity="one">%d file</item>
        <item quantity="other">%d files</item>
    </plurals>
</resources>
""",
    """<?xml version="1.0" encoding="utf-8"?>
<resources xmlns:xliff="urn:oasis:names:tc:xliff:document:1.2">
    <!-- kept -->
    <string name="a">DON\\'T <b>GO</b> TO <xliff:g id="x">%1$s</xliff:g> &amp; STAY\\nHERE</string>
    <string name="b" translatable="false">kept</string>
    <string name="c">"IT'S  HERE"</string>
    <string name="d"><![CDATA[<a href="x">IT\\'S A LINK</a>]]></string>
    <string name="e">@string/a</string>
    <string-array name="f"><item>ONE</item><item>TWO</item></string-array>
    <plurals name="g">
        <item quantity="one">%d FILE</item>
        <item quantity="other">%d FILES</item>
        <item quantity="few">%d FILES</item>
        <item quantity="many">%d FILES</item>
    </plurals>
</resources>
""",
)
STRINGS = Sample(
    "Localizable.strings",
    '/* kept */\n"a" = "Hello \\"you\\" %@\\n";\nb = "x y";\n// kept\n"Key alone";\n',
    '/* kept */\n"a" = "HELLO \\"YOU\\" %@\\n";\nb = "X Y";\n// kept\n"Key alone" = "KEY ALONE";\n',
)
_DICT = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>files</key>
	<dict>
		<key>NSStringLocalizedFormatKey</key>
		<string>%#@files@</string>
		<key>files</key>
		<dict>
			<key>NSStringFormatSpecTypeKey</key>
			<string>NSStringPluralRuleType</string>
			<key>NSStringFormatValueTypeKey</key>
			<string>d</string>
			<key>one</key>
			<string>%d ONE</string>
			<key>other</key>
			<string>%d OTHER</string>ADDED
		</dict>
	</dict>
</dict>
</plist>
"""
_FORM = "\n\t\t\t<key>{}</key>\n\t\t\t<string>%d FILES</string>"
STRINGSDICT = Sample(
    "Localizable.stringsdict",
    _DICT.replace("ONE<", "file<").replace("OTHER", "files").replace("ADDED", ""),
    _DICT.replace("ONE<", "FILE<")
    .replace("OTHER", "FILES")
    .replace("ADDED", _FORM.format("few") + _FORM.format("many")),
)
CATALOG = Sample(
    "Localizable.xcstrings",
    '{\n  "sourceLanguage" : "en",\n  "strings" : {\n    "Hello" : {\n\n    }\n  },\n  "version" : "1.0"\n}',
    '{\n  "sourceLanguage" : "en",\n  "strings" : {\n    "Hello" : {\n      "localizations" : {\n        "pl" : {\n'
    '          "stringUnit" : {\n            "state" : "translated",\n            "value" : "HELLO"\n          }\n'
    '        }\n      }\n    }\n  },\n  "version" : "1.0"\n}',
)
RESX = Sample(
    "App.resx",
    '<?xml version="1.0"?>\n<root>\n  <!-- kept -->\n  <data name="A" xml:space="preserve">'
    "<value>Hello &lt;b&gt;</value>"
    '<comment>kept</comment></data>\n  <data name="B" type="x"><value>kept</value></data>\n</root>',
    '<?xml version="1.0"?>\n<root>\n  <!-- kept -->\n  <data name="A" xml:space="preserve">'
    "<value>HELLO &lt;b&gt;</value>"
    '<comment>kept</comment></data>\n  <data name="B" type="x"><value>kept</value></data>\n</root>',
)
PROPERTIES = Sample(
    "app.properties",
    "# kept\na = Caf\\u00e9 {0} isn''t\n  b.c:two \\\n    lines\n\n! kept\nkey\\ d it's\nempty=\n",
    "# kept\na = CAF\\u00c9 {0} ISN''T\n  b.c:TWO LINES\n\n! kept\nkey\\ d IT'S\nempty=\n",
)
YAML = Sample(
    "en.yml",
    """# kept
en:
  a: Hello   # kept
  b: "x: %{n}"
  yes: no
  c: 'it''s'
  d: |
    line one
      two

  e: >-
    folded text
    here
  files:
    one: 1 file
    other: "%{count} files"
  l: [a b, 'c']
  f: &x anchored text
  g: *x
""",
    """# kept
pl:
  a: HELLO   # kept
  b: "X: %{n}"
  yes: no
  c: 'IT''S'
  d: |
    LINE ONE
      TWO

  e: >-
    FOLDED TEXT HERE
  files:
    one: 1 FILE
    other: "%{count} FILES"
    few: "%{count} FILES"
    many: "%{count} FILES"
  l: [A B, 'C']
  f: &x ANCHORED TEXT
  g: *x
""",
)
FLUENT = Sample(
    "app.ftl",
    """# kept
-brand-name = Kept
hello = Hello { $name } and
    more
    .title = A title
n = { $n ->
    [one] one file
   *[other] { $n } files
}
""",
    """# kept
-brand-name = Kept
hello = HELLO { $name } AND MORE
    .title = A TITLE
n = { $n ->
    [one] ONE FILE
    [few] { $n } FILES
    [many] { $n } FILES
   *[other] { $n } FILES
}
""",
)
QT = Sample(
    "app.ts",
    """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1">
<context>
    <name>Main</name>
    <message>
        <source>a &lt;b&gt;</source>
        <translation type="unfinished"></translation>
    </message>
    <message numerus="yes">
        <source>%n file(s)</source>
        <translation type="unfinished">
            <numerusform></numerusform>
        </translation>
    </message>
    <message><source>gone</source><translation type="vanished">kept</translation></message>
</context>
</TS>
""",
    """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="pl">
<context>
    <name>Main</name>
    <message>
        <source>a &lt;b&gt;</source>
        <translation>A <b></translation>
    </message>
    <message numerus="yes">
        <source>%n file(s)</source>
        <translation>
            <numerusform>%n FILE(S)</numerusform>
            <numerusform>%n FILE(S)</numerusform>
            <numerusform>%n FILE(S)</numerusform>
        </translation>
    </message>
    <message><source>gone</source><translation type="vanished">kept</translation></message>
</context>
</TS>
""".replace("A <b>", "A &lt;b&gt;"),
)
SRT = Sample(
    "film.srt",
    "1\n00:00:01,000 --> 00:00:02,000\nHello my friend,\nwho comes from\n\n2\n00:00:03,000 --> 00:00:04,500\n"
    "far away.\n\n3\n00:00:05,000 --> 00:00:06,000\n- Hi.\n- <i>Ho.</i>\n",
    "1\n00:00:01,000 --> 00:00:02,000\nHELLO MY FRIEND,\nWHO COMES FROM\n\n2\n00:00:03,000 --> 00:00:04,500\n"
    "FAR AWAY.\n\n3\n00:00:05,000 --> 00:00:06,000\n- HI.\n- <i>HO.</i>\n",
)
VTT = Sample(
    "film.vtt",
    "WEBVTT\n\nNOTE kept\n\nSTYLE\n::cue {}\n\nintro\n00:01.000 --> 00:02.000 align:start\nHello <v Bob>there.\n",
    "WEBVTT\n\nNOTE kept\n\nSTYLE\n::cue {}\n\nintro\n00:01.000 --> 00:02.000 align:start\nHELLO <v Bob>THERE.\n",
)
HTML = Sample(
    "page.html",
    """<!DOCTYPE html>
<html lang="en"><head><title>The title</title><style>p > a {}</style>
<meta name="description" content="It's good"></head>
<body><!-- kept -->
<p>Hello <b>dear</b>
 friend&nbsp;&amp; <img src="a.png" alt="a dog"> see <code>x < y</code>.</p>
<ul><li><a href="x" title="say &quot;hi&quot;">Link</a></li></ul>
<pre>kept</pre><script>var a = "<p>kept</p>";</script>
<button aria-label='close'>Close</button><input type="submit" value="send" placeholder="type">
<div translate="no">Kept</div><p>a <span class="notranslate">Kept</span> b</p>
</body></html>
""",
    """<!DOCTYPE html>
<html lang="pl"><head><title>THE TITLE</title><style>p > a {}</style>
<meta name="description" content="IT'S GOOD"></head>
<body><!-- kept -->
<p>HELLO <b>DEAR</b> FRIEND&nbsp;&amp; <img src="a.png" alt="A DOG"> SEE <code>x < y</code>.</p>
<ul><li><a href="x" title="SAY &quot;HI&quot;">LINK</a></li></ul>
<pre>kept</pre><script>var a = "<p>kept</p>";</script>
<button aria-label='CLOSE'>CLOSE</button><input type="submit" value="SEND" placeholder="TYPE">
<div translate="no">Kept</div><p>A <span class="notranslate">Kept</span> B</p>
</body></html>
""",
)
MARKDOWN = Sample(
    "README.md",
    """---
title: kept
---

# Title *em* #

A `code` and [a link](http://x "t") in
two lines.

> a quotation that runs
> over some lines

| a | b |
|---|---|
| c d | `x` \\| y |

```
kept
```

<div>
kept
</div>

[ref]: http://x
![a picture](a.png), see [ref] or [the text][ref]

- [ ] task
""",
    """---
title: kept
---

# TITLE *EM* #

A `code` AND [A LINK](http://x "t") IN
TWO LINES.

> A QUOTATION THAT RUNS
> OVER SOME LINES

| A | B |
|---|---|
| C D | `x` \\| Y |

```
kept
```

<div>
kept
</div>

[ref]: http://x
![A PICTURE](a.png), SEE [ref] OR [THE TEXT][ref]

- [ ] TASK
""",
)
CSV = Sample(
    "strings.csv",
    'id,en,pl\n1,"a, ""b""",\n2,two,\n3,"a\nb",""\n',
    'id,en,pl\n1,"a, ""b""","A, ""B"""\n2,two,TWO\n3,"a\nb","A\nB"\n',
)
TSV = Sample(
    "strings.tsv",
    'key\ten\tnote\na\tone "two"\tkept\nb\t\tkept\n',
    'key\ten\tnote\tpl\na\tone "two"\tkept\tONE "TWO"\nb\t\tkept\t\n',
)
SAMPLES = [
    *(CSV, TSV),
    *(JSON, CHROME, ARB, ANDROID, STRINGS, STRINGSDICT, CATALOG, RESX, PROPERTIES, YAML, FLUENT, QT, SRT, VTT),
    *(HTML, MARKDOWN),
]
