"""Writes what Pillow makes of other people's images, to be compared with what is made of them here.

    python3 -m venv venv && venv/bin/pip install pillow==12.0.0 numpy
    venv/bin/pip download --no-deps --no-binary :all: pillow==12.0.0 scikit-image matplotlib wand    # and unpack them
    venv/bin/python tools/corpus_images.py FOLDER... OUT
    FLAMANT_CORPUS=OUT cargo test --test formats corpus -- --ignored --nocapture

OUT/corpus.bin and OUT/corpus.txt are written as golden_jpeg.py says; of files that Pillow refuses the line ends in its
reason. Files are taken by their first bytes, each content once, of 16 MB and of 16 million pixels at most.
"""

import io
import sys
import warnings
from pathlib import Path

import PIL
from golden_jpeg import expectation, fnv1a
from PIL import Image

STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")


def is_read_here(content):
    return content.startswith(STARTS) or content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def main(folders, out):
    seen, lines, whole = set(), [], b""
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        if path.stat().st_size > 1 << 24:
            continue
        content = path.read_bytes()
        if not is_read_here(content) or content in seen:
            continue
        seen.add(content)
        try:
            # Of a picture as large as this one, pure Python would take minutes for the digest.
            if (size := Image.open(io.BytesIO(content)).size) and size[0] * size[1] > 1 << 24:
                continue
            image = expectation(content)
            expected = f"{image.width} {image.height} {fnv1a(image.tobytes()):016x}"
        except Exception as reason:
            expected = f"refused: {type(reason).__name__}: {reason}".replace("\n", " ")
        lines.append(f"{'/'.join(path.parts[-3:]).replace(' ', '_')} {len(content)} {expected}")
        whole += content
    (out / "corpus.bin").write_bytes(whole)
    (out / "corpus.txt").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} files, {len(whole)} bytes")


if __name__ == "__main__":
    assert PIL.__version__ == "12.0.0", f"Pillow 12.0.0 is the reference, this is {PIL.__version__}"
    warnings.simplefilter("ignore")
    *folders, out = map(Path, sys.argv[1:])
    main(folders, out)
