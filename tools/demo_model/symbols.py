"""Draws the symbols that the demonstration model is trained and tested on.

Two sources of symbols: letters of many writing systems in the Noto and DejaVu
fonts, and made-up symbols composed of random strokes.  Five writing systems
are kept for the test and never drawn for training (HELD_OUT); so are all
digits and other numerals.  `check_trainable` enforces this by the Unicode
script property, and by block for code points the property table might miss.

    python symbols.py --work WORK      draws WORK/bank.npz (training symbols)
                                       and WORK/sheets.npz (test symbols)

Needs Pillow, NumPy, fontTools, regex; the fonts of Debian's fonts-noto-core,
fonts-noto-extra, fonts-noto-cjk, fonts-dejavu-core and fonts-dejavu-extra.
"""
import argparse
import glob
import json
import os
import unicodedata

import numpy as np
import regex
from PIL import Image, ImageDraw, ImageFont

FONT_ROOT = os.environ.get("FONT_ROOT", "/usr/share/fonts")
BASE = 64   # side of a stored training drawing; training crops and warps it
TILE = 40   # side of a picture as the model sees it
FONT_SIZE = 44

HELD_OUT = ["Armenian", "Georgian", "Tifinagh", "Nko", "Canadian_Aboriginal"]
HELD_OUT_BLOCKS = [
    (0x0530, 0x058F), (0xFB13, 0xFB17),                      # Armenian
    (0x10A0, 0x10FF), (0x1C90, 0x1CBF), (0x2D00, 0x2D2F),    # Georgian
    (0x2D30, 0x2D7F), (0x07C0, 0x07FF),                      # Tifinagh, N'Ko
    (0x1400, 0x167F), (0x18B0, 0x18FF), (0x11AB0, 0x11ABF),  # Syllabics
]
TEST_BLOCKS = {
    "armenian": (0x531, 0x556), "georgian": (0x10D0, 0x10F0), "tifinagh": (0x2D30, 0x2D65),
    "nko": (0x7CA, 0x7EA), "syllabics": (0x1550, 0x159F),
}
TITLES = {
    "armenian": "Armenian capitals", "georgian": "Georgian (Mkhedruli)", "tifinagh": "Tifinagh",
    "nko": "N'Ko", "syllabics": "Canadian Aboriginal Syllabics", "procedural": "Made-up strokes",
}

# Scripts whose letters are drawn for training, with the most symbols taken of each.
MANY = 10_000
TRAIN_SCRIPTS = {
    "Latin": 420, "Greek": MANY, "Cyrillic": 230, "Coptic": MANY, "Hebrew": MANY, "Arabic": 160, "Syriac": MANY,
    "Thaana": MANY, "Devanagari": MANY, "Bengali": MANY, "Gurmukhi": MANY, "Gujarati": MANY, "Oriya": MANY,
    "Tamil": MANY, "Telugu": MANY, "Kannada": MANY, "Malayalam": MANY, "Sinhala": MANY, "Thai": MANY, "Lao": MANY,
    "Tibetan": MANY, "Myanmar": MANY, "Ethiopic": 360, "Cherokee": MANY, "Ogham": MANY, "Runic": MANY,
    "Tagalog": MANY, "Hanunoo": MANY, "Buhid": MANY, "Tagbanwa": MANY, "Khmer": MANY, "Mongolian": MANY,
    "Limbu": MANY, "Tai_Le": MANY, "New_Tai_Lue": MANY, "Buginese": MANY, "Tai_Tham": MANY, "Balinese": MANY,
    "Sundanese": MANY, "Batak": MANY, "Lepcha": MANY, "Ol_Chiki": MANY, "Glagolitic": MANY, "Hiragana": MANY,
    "Katakana": MANY, "Bopomofo": MANY, "Hangul": 500, "Yi": 500, "Lisu": MANY, "Vai": MANY, "Bamum": 200,
    "Syloti_Nagri": MANY, "Phags_Pa": MANY, "Saurashtra": MANY, "Kayah_Li": MANY, "Rejang": MANY, "Javanese": MANY,
    "Cham": MANY, "Tai_Viet": MANY, "Meetei_Mayek": MANY, "Linear_B": 220, "Lycian": MANY, "Carian": MANY,
    "Old_Italic": MANY, "Gothic": MANY, "Old_Permic": MANY, "Ugaritic": MANY, "Old_Persian": MANY,
    "Deseret": MANY, "Shavian": MANY, "Osmanya": MANY, "Osage": MANY, "Elbasan": MANY, "Caucasian_Albanian": MANY,
    "Linear_A": 300, "Cypriot": MANY, "Imperial_Aramaic": MANY, "Palmyrene": MANY, "Nabataean": MANY,
    "Phoenician": MANY, "Lydian": MANY, "Meroitic_Hieroglyphs": MANY, "Meroitic_Cursive": MANY, "Kharoshthi": MANY,
    "Old_South_Arabian": MANY, "Old_North_Arabian": MANY, "Manichaean": MANY, "Avestan": MANY,
    "Inscriptional_Parthian": MANY, "Inscriptional_Pahlavi": MANY, "Old_Turkic": MANY, "Old_Hungarian": MANY,
    "Hanifi_Rohingya": MANY, "Sogdian": MANY, "Old_Sogdian": MANY, "Elymaic": MANY, "Brahmi": MANY, "Kaithi": MANY,
    "Sora_Sompeng": MANY, "Chakma": MANY, "Mahajani": MANY, "Sharada": MANY, "Khojki": MANY, "Multani": MANY,
    "Khudawadi": MANY, "Grantha": MANY, "Newa": MANY, "Tirhuta": MANY, "Siddham": MANY, "Modi": MANY, "Takri": MANY,
    "Ahom": MANY, "Dogra": MANY, "Warang_Citi": MANY, "Zanabazar_Square": MANY, "Soyombo": MANY,
    "Pau_Cin_Hau": MANY, "Bhaiksuki": MANY, "Marchen": MANY, "Masaram_Gondi": MANY, "Gunjala_Gondi": MANY,
    "Anatolian_Hieroglyphs": 150, "Mro": MANY, "Bassa_Vah": MANY, "Pahawh_Hmong": MANY, "Medefaidrin": MANY,
    "Miao": MANY, "Nushu": 200, "Duployan": 100, "Nyiakeng_Puachue_Hmong": MANY, "Wancho": MANY,
    "Mende_Kikakui": 150, "Adlam": MANY, "Egyptian_Hieroglyphs": 200, "Cuneiform": 150, "Han": 400, "Mandaic": MANY,
    "Samaritan": MANY, "Hatran": MANY, "Psalter_Pahlavi": MANY, "Yezidi": MANY,
}
# Symbols that belong to no one script: arrows, mathematics, technical, shapes.
COMMON_BLOCKS = [(0x2190, 0x21FF), (0x2200, 0x22FF), (0x2300, 0x23CF), (0x25A0, 0x25FF), (0x2600, 0x26FF),
                 (0x2701, 0x2775), (0x27C0, 0x27EF), (0x2980, 0x2AFF), (0x1D100, 0x1D1DD)]
DENSE = {"Han", "Hangul", "Yi", "Egyptian_Hieroglyphs", "Cuneiform", "Anatolian_Hieroglyphs", "Nushu", "Common"}

_held_out = regex.compile("[" + "".join(rf"\p{{Script={s}}}" for s in HELD_OUT) + "]")


def check_trainable(code_point):
    """Raises unless the code point may be drawn for training."""
    ch = chr(code_point)
    assert not _held_out.match(ch), f"U+{code_point:04X} belongs to a held-out script"
    assert not any(a <= code_point <= b for a, b in HELD_OUT_BLOCKS), f"U+{code_point:04X} lies in a held-out block"
    assert not unicodedata.category(ch).startswith("N"), f"U+{code_point:04X} is a numeral"


# ---------------------------------------------------------------- fonts

def dejavu_fonts():
    return sorted(f for f in glob.glob(FONT_ROOT + "/truetype/dejavu/DejaVu*.ttf") if "TeX" not in f)


def training_fonts():
    """(path, index) of each font used for training, a few styles a family."""
    styles = {"Regular", "Bold", "Light", "Black", "Italic", "BoldItalic", "CondensedBold", "SemiCondensed",
              "ExtraCondensedLight", "Condensed"}
    skip = ("Armenian", "Georgian", "Tifinagh", "NKo", "CanadianAboriginal", "SignWriting", "MayanNumerals",
            "Display", "Unjoined", "Siyaq")
    out = [(f, 0) for f in dejavu_fonts()]
    for f in sorted(glob.glob(FONT_ROOT + "/truetype/noto/*.ttf")):
        family, _, style = os.path.basename(f)[:-4].partition("-")
        if style in styles and not family.endswith("UI") and not any(s in family for s in skip):
            out.append((f, 0))
    out += [(f, 0) for f in sorted(glob.glob(FONT_ROOT + "/opentype/noto/*CJK-*.ttc"))]
    return out


def glyph_box(font, ch):
    im = Image.new("L", (176, 176))
    d = ImageDraw.Draw(im)
    bb = d.textbbox((0, 0), ch, font=font)
    w, h = bb[2] - bb[0], bb[3] - bb[1]
    d.text((88 - (bb[0] + w / 2), 88 - (bb[1] + h / 2)), ch, fill=255, font=font)
    return im, w, h


def base_glyph(font, ch):
    """The glyph in the middle of a BASE x BASE picture, scaled to 1/1.6 of its side; None if blank."""
    im, w, h = glyph_box(font, ch)
    if w <= 1 or h <= 1 or max(w, h) > 104 or im.getbbox() is None:
        return None
    s = round(max(w, h, 24) * 1.6 / 2)
    return np.asarray(im.crop((88 - s, 88 - s, 88 + s, 88 + s)).resize((BASE, BASE), Image.BICUBIC))


def test_glyph(rng, font, ch, size=TILE):
    """One jittered drawing, as shown in the test sheets."""
    im, w, h = glyph_box(font, ch)
    s = max(w, h, 24) * rng.uniform(1.15, 1.6)
    angle, shear = rng.normal(0, 8), rng.normal(0, .08)
    im = im.rotate(angle, resample=Image.BICUBIC)
    im = im.transform(im.size, Image.AFFINE, (1, shear, -88 * shear, 0, 1, 0), resample=Image.BICUBIC)
    cx, cy = 88 + rng.uniform(-.06, .06, 2) * s
    box = (int(cx - s / 2), int(cy - s / 2), int(cx + s / 2), int(cy + s / 2))
    return np.asarray(im.crop(box).resize((size, size), Image.BICUBIC))


# ---------------------------------------------------------------- made-up symbols

def new_stroke(rng):
    kind = rng.choice(6, p=[.3, .27, .13, .12, .1, .08])
    if kind == 0:                                  # a straight line
        p = rng.uniform(.08, .92, (2, 2))
        return ("curve", np.stack([p[0], p.mean(0), p[1]]))
    if kind == 1:                                  # a quadratic curve
        return ("curve", rng.uniform(.08, .92, (3, 2)))
    if kind == 2:                                  # an axis-parallel line on a coarse grid
        a, b, c = rng.integers(0, 4, 3) / 3 * .8 + .1
        b = b if abs(b - a) > .2 else (a + .4) % .9
        p = np.array([[a, c], [b, c]]) if rng.random() < .5 else np.array([[c, a], [c, b]])
        return ("curve", np.stack([p[0], p.mean(0), p[1]]))
    if kind in (3, 4):                             # a loop, or an arc of one
        c, r = rng.uniform(.28, .72, 2), rng.uniform(.1, .3, 2)
        start, sweep = rng.uniform(0, 2 * np.pi), 2 * np.pi if kind == 3 else rng.uniform(2.2, 5.2)
        return ("arc", np.concatenate([c, r, [start, sweep]]))
    return ("dot", np.concatenate([rng.uniform(.12, .88, 2), [rng.uniform(.02, .05)]]))


def new_symbol(rng):
    strokes = [new_stroke(rng) for _ in range(rng.choice([2, 3, 4, 5], p=[.25, .35, .27, .13]))]
    for a, b in zip(strokes, strokes[1:]):         # half of the curves start where the last one ended
        if a[0] == b[0] == "curve" and rng.random() < .5:
            b[1][0] = a[1][rng.choice([0, 2, 2])]
    return strokes


def mutate(rng, symbol):
    """A look-alike: one stroke added, dropped, replaced or moved, or the whole mirrored."""
    s = [(k, p.copy()) for k, p in symbol]
    i, how = rng.integers(len(s)), rng.choice(5, p=[.2, .15, .3, .25, .1])
    if how == 0 and len(s) < 6:
        s.append(new_stroke(rng))
    elif how == 1 and len(s) > 2:
        s.pop(i)
    elif how == 4:
        m = rng.integers(2)
        for k, p in s:
            if k == "curve":
                p[:, m] = 1 - p[:, m]
            else:
                p[m] = 1 - p[m]
                if k == "arc":
                    p[4] = np.pi - p[4] - p[5] if m == 0 else -p[4] - p[5]
    elif how == 3 and s[i][0] == "curve":
        j = rng.integers(3)
        s[i][1][j] = np.clip(s[i][1][j] + rng.choice([-1, 1], 2) * rng.uniform(.2, .45, 2), .05, .95)
    else:
        s[i] = new_stroke(rng)
    return s


_t = np.linspace(0, 1, 18)
_bezier = np.stack([(1 - _t) ** 2, 2 * _t * (1 - _t), _t ** 2], -1)


def draw_strokes(rng, symbol, spread=.02, side=BASE):
    """Draws the symbol with a wobbling hand at 1/1.6 of the picture's side."""
    scale = 3
    n = side * scale
    im = Image.new("L", (n, n))
    d = ImageDraw.Draw(im)
    width = rng.uniform(.045, .1)
    unit = n / 1.6
    for kind, p in symbol:
        if kind == "curve":
            pts = _bezier @ (p + rng.normal(0, spread, p.shape))
        elif kind == "arc":
            q = p + rng.normal(0, spread, 6) * [1, 1, .7, .7, 1, 1.5]
            a = np.linspace(q[4], q[4] + q[5], 28)
            pts = np.stack([q[0] + q[2] * np.cos(a), q[1] + q[3] * np.sin(a)], -1)
        else:
            c, r = p[:2] + rng.normal(0, spread, 2), p[2] + width * .4
            pts = np.array([c]), r
        if kind == "dot":
            (pts, r) = pts
            x, y = (pts[0] - .5) * unit + n / 2
            d.ellipse((x - r * unit, y - r * unit, x + r * unit, y + r * unit), fill=255)
            continue
        xy = (pts - .5) * unit + n / 2
        w = max(2, round(width * unit))
        d.line([tuple(v) for v in xy], fill=255, width=w, joint="curve")
        for x, y in (xy[0], xy[-1]):
            d.ellipse((x - w / 2, y - w / 2, x + w / 2, y + w / 2), fill=255)
    # Centred and scaled by its extent, as letters are.
    x0, y0, x1, y1 = im.getbbox()
    half = max(x1 - x0, y1 - y0, .45 * unit) * .8
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    return np.asarray(im.transform((side, side), Image.EXTENT, (cx - half, cy - half, cx + half, cy + half), Image.BILINEAR)
                      if half < n * .4 else
                      im.crop((int(cx - half), int(cy - half), int(cx + half), int(cy + half))).resize((side, side), Image.BOX))


def test_strokes(rng, symbol, size=TILE):
    im = Image.fromarray(draw_strokes(rng, symbol, side=96))
    r, shear = rng.uniform(1.15, 1.6) / 1.6 * 96, rng.normal(0, .08)
    im = im.rotate(rng.normal(0, 8), resample=Image.BICUBIC)
    im = im.transform(im.size, Image.AFFINE, (1, shear, -48 * shear, 0, 1, 0), resample=Image.BICUBIC)
    cx, cy = 48 + rng.uniform(-.06, .06, 2) * r
    return np.asarray(im.crop((int(cx - r / 2), int(cy - r / 2), int(cx + r / 2), int(cy + r / 2)))
                      .resize((size, size), Image.BICUBIC))


# ---------------------------------------------------------------- the training bank

def collect_letters(seed):
    """{script: [(code point, [font numbers])]} of all letters to be drawn, and the fonts."""
    from fontTools.ttLib import TTFont
    fonts = training_fonts()
    covers = {}
    for i, (f, index) in enumerate(fonts):
        for cp in TTFont(f, fontNumber=index, lazy=True).getBestCmap():
            covers.setdefault(cp, []).append(i)
    rng = np.random.default_rng(seed)
    by_script = {}
    wanted = {s: regex.compile(rf"\p{{Script={s}}}") for s in TRAIN_SCRIPTS}
    for cp in sorted(covers):
        ch = chr(cp)
        category = unicodedata.category(ch)
        if category in ("Lu", "Ll", "Lo", "Lm") and unicodedata.decomposition(ch) == "" \
                or category == "Lo" and 0xAC00 <= cp <= 0xD7A3 \
                or category in ("Lu", "Ll") and cp < 0x250:
            if 0xFB50 <= cp <= 0xFEFF or 0xFF00 <= cp <= 0xFFEF or 0x1D400 <= cp <= 0x1D7FF:
                continue        # presentation forms: the same letters once more
            for s, pattern in wanted.items():
                if pattern.match(ch):
                    by_script.setdefault(s, []).append((cp, covers[cp]))
                    break
        elif category in ("Sm", "So", "Sk") and any(a <= cp <= b for a, b in COMMON_BLOCKS) \
                and regex.match(r"\p{Script=Common}", ch):
            by_script.setdefault("Common", []).append((cp, covers[cp]))
    for s, letters in by_script.items():
        most = TRAIN_SCRIPTS.get(s, 500)
        while len(letters) > most:     # drop runs of 20, so that neighbours stay together
            a = rng.integers(len(letters))
            del letters[a:a + min(20, len(letters) - most)]
    return by_script, fonts


def make_bank(work, seed=11, variants=7, made_up=7200, lookalikes=8, run=40):
    rng = np.random.default_rng(seed)
    by_script, fonts = collect_letters(seed)
    loaded = {}
    images, start, group, script, codes = [], [0], [], [], []
    group_script = []

    def font(i):
        if i not in loaded:
            f = ImageFont.truetype(fonts[i][0], FONT_SIZE, index=fonts[i][1])
            loaded[i] = f
        return loaded[i]

    used_fonts = set()
    for s in sorted(by_script):
        letters = by_script[s]
        for k, (cp, have) in enumerate(letters):
            if k % run == 0:
                group_script.append(s)
            check_trainable(cp)
            # Differing families first: a few of many look-alike weights say little.
            seen, ranked = {}, []
            for i in rng.permutation(have):
                family = os.path.basename(fonts[i][0]).split("-")[0]
                seen[family] = seen.get(family, 0) + 1
                ranked.append((seen[family], len(ranked), int(i)))
            have = [i for _, _, i in sorted(ranked)]
            drawn = []
            for i in have:
                try:
                    im = base_glyph(font(i), chr(cp))
                except OSError:
                    im = None
                if im is not None:
                    drawn.append(im)
                    used_fonts.add(os.path.basename(fonts[i][0]))
                if len(drawn) == variants:
                    break
            if not drawn:
                continue
            images += drawn
            start.append(len(images))
            group.append(len(group_script) - 1)
            script.append(s)
            codes.append(cp)
    # Symbols that look the same once centred and scaled (c and C, Latin and
    # Greek A) would be told apart for no visible reason: keep the first.
    small = np.stack([np.asarray(Image.fromarray(images[a]).resize((20, 20), Image.BOX)) for a in start[:-1]])
    small = small.reshape(len(small), -1).astype(np.float32)
    small /= np.linalg.norm(small, axis=1, keepdims=True) + 1e-6
    keep = np.ones(len(small), bool)
    for a in range(len(small)):
        if keep[a]:
            twins = small[a + 1:] @ small[a] > .965
            keep[a + 1:][twins] = False
    order = [i for i in range(len(keep)) if keep[i]]
    print(f"{len(keep)} letters, {len(order)} after dropping twins", flush=True)
    images2, start2 = [], [0]
    for i in order:
        images2 += images[start[i]:start[i + 1]]
        start2.append(len(images2))
    group, script, codes = ([x[i] for i in order] for x in (group, script, codes))
    for _ in range(made_up // lookalikes):
        group_script.append("made-up")
        first = new_symbol(rng)
        for k in range(lookalikes):
            symbol = first if k == 0 else mutate(rng, first) if k % 2 else mutate(rng, mutate(rng, first))
            images2 += [draw_strokes(rng, symbol) for _ in range(4)]
            start2.append(len(images2))
            group.append(len(group_script) - 1)
            script.append("made-up")
            codes.append(0)
    for cp in codes:
        if cp:
            check_trainable(cp)
    counts = {}
    for s, cp in zip(script, codes):
        counts.setdefault(s, []).append(cp)
    np.savez(os.path.join(work, "bank.npz"), images=np.stack(images2), start=np.array(start2),
             group=np.array(group), script=np.array(script), codes=np.array(codes))
    report = {"made_up_symbols": len(counts.pop("made-up")), "seed": seed, "fonts": sorted(used_fonts),
              "scripts": {s: {"symbols": len(c), "ranges": ranges(c)} for s, c in sorted(counts.items())}}
    json.dump(report, open(os.path.join(work, "bank.json"), "w"), indent=1)
    print(len(start2) - 1, "symbols", len(images2), "base drawings", len(counts), "scripts", flush=True)


def ranges(codes):
    """Sorted code points as inclusive [first, last] ranges."""
    out = []
    for c in sorted(codes):
        if out and c == out[-1][1] + 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return [[f"U+{a:04X}", f"U+{b:04X}"] for a, b in out]


# ---------------------------------------------------------------- the test sheets

def test_sheet(block, columns, seed):
    """All letters of one block, `columns` drawings each, in randomly chosen DejaVu fonts."""
    rng = np.random.default_rng(seed)
    names = dejavu_fonts()
    fonts = [ImageFont.truetype(f, FONT_SIZE) for f in names]
    missing = [bytes(f.getmask("\U000effff")) for f in fonts]
    rows, codes, used = [], [], set()
    for cp in range(block[0], block[1] + 1):
        ch = chr(cp)
        ok = [i for i, f in enumerate(fonts) if bytes(f.getmask(ch)) != missing[i] and f.getmask(ch).getbbox()]
        if ok:
            pick = [ok[rng.integers(len(ok))] for _ in range(columns)]
            rows.append(np.stack([test_glyph(rng, fonts[i], ch) for i in pick]))
            codes.append(cp)
            used |= {os.path.basename(names[i]) for i in pick}
    return np.stack(rows), codes, sorted(used)


def make_sheets(work, columns=12, seed=5, made_up=32):
    arrays, info = {}, {}
    for name, block in TEST_BLOCKS.items():
        arrays[name], codes, used = test_sheet(block, columns, seed)
        info[name] = {"codes": codes, "fonts": used}
    rng = np.random.default_rng(9_999)     # training uses seed 11
    arrays["procedural"] = np.stack([np.stack([test_strokes(rng, s) for _ in range(columns)])
                                     for s in (new_symbol(rng) for _ in range(made_up))])
    info["procedural"] = {"codes": None, "fonts": []}
    np.savez(os.path.join(work, "sheets.npz"), **arrays)
    json.dump(info, open(os.path.join(work, "sheets.json"), "w"))
    print({k: v.shape for k, v in arrays.items()}, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    make_sheets(args.work)
    make_bank(args.work)
