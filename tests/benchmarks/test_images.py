"""Images as they are read: upright, 8 bits per channel, and one line for whatever does not open."""

import struct

import numpy as np
import pytest
from PIL import Image

from progrpo.benchmarks.images import TURNS, open_image
from progrpo.errors import UserError

ORIENTATION = 0x0112
GREY = np.arange(12).reshape(3, 4) * 20
UPRIGHT = {  # how a viewer turns rows and columns, by the EXIF standard
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def red(path):
    return np.asarray(open_image(path))[..., 0]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_keeps_its_upper_8_bits(tmp_path, name):
    values = np.array([[0, 255, 256, 511], [32768, 65279, 65280, 65535]], np.uint16)
    for order in ("<u2", ">u2")[: 2 if name == "a.tif" else 1]:
        Image.fromarray(values.astype(order)).save(tmp_path / name)
        with Image.open(tmp_path / name) as stored:
            assert stored.mode.startswith("I;16")
        found = np.asarray(open_image(tmp_path / name))
        assert found.tolist() == np.repeat(values[..., None] // 256, 3, 2).tolist()


@pytest.mark.parametrize(("kind", "words"), [(np.float32, "floating-point"), (np.int32, "32-bit whole")])
def test_pixels_without_a_known_white_are_refused(tmp_path, kind, words):
    Image.fromarray((GREY / 255).astype(kind)).save(tmp_path / "a.tif")
    with pytest.raises(
        UserError, match=f"a.tif: pixels are {words} numbers, whose white is unknown; save it with 8 bits"
    ):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_an_image_is_turned_upright(tmp_path, name, orientation):
    exif, lossless = Image.Exif(), {"lossless": True} if name == "a.webp" else {}
    exif[ORIENTATION] = orientation
    for kind in (np.uint8, np.uint16)[: 1 if lossless else 2]:
        stored = GREY.astype(kind) << (0 if kind is np.uint8 else 8)
        Image.fromarray(stored).convert(None if not lossless else "RGB").save(tmp_path / name, exif=exif, **lossless)
        assert red(tmp_path / name).tolist() == UPRIGHT[orientation](GREY).tolist()
    assert set(UPRIGHT) == {1, *TURNS}


def exif_block(*entries):
    fields = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + fields + b"\0" * 4


@pytest.mark.parametrize(
    "damaged",
    [
        (282, 1, 1, b"\x08\0\0\0"),  # a resolution of raw bytes: TypeError where EXIF is written again
        (256, 12, 4, b"\0\0\0\0"),  # a width that is no whole number: struct.error
        (305, 11, 1, b"|\xf1\x97V"),  # a program's name that is a number: AttributeError
    ],
)
def test_a_damaged_exif_block_does_not_keep_an_image_from_being_turned(tmp_path, damaged):
    entries = sorted([(ORIENTATION, 3, 1, struct.pack("<I", 6)), damaged])
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif_block(*entries))
    assert open_image(tmp_path / "a.jpg").size == (4, 8)


@pytest.mark.parametrize(
    "error", [struct.error("unpack requires a buffer"), TypeError("a\nb"), KeyError(3), EOFError()]
)
def test_whatever_pillow_raises_is_one_line_that_names_the_file(tmp_path, monkeypatch, error):
    def fail(_):
        raise error

    Image.new("RGB", (8, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "getexif", fail)
    with pytest.raises(UserError, match=r"a.png: the image does not open \(.+\); generate it again") as caught:
        open_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_image_or_is_not_there_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    for name, message in (("a.png", "does not open"), ("b.png", "no such image"), (".", "does not open")):
        with pytest.raises(UserError, match=message):
            open_image(tmp_path / name)
