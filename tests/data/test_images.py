"""Every kind of picture becomes upright RGB or a reason; tensors at public doors are checked."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rediffuse.data.images import MAX_PIXELS, decode_image, pixels_sha256, read_image, to_pil, to_rgb, to_tensor
from rediffuse.errors import DataError, RediffuseError


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_lossless_files_keep_every_pixel(draw, encode):
    image = draw(1)
    for format in ("PNG", "BMP", "TIFF", "PPM"):
        assert read_image(encode(image, format)).tobytes() == image.tobytes()
    assert read_image(encode(image, "WEBP", lossless=True)).tobytes() == image.tobytes()


def test_a_path_and_its_bytes_give_the_same(draw, encode, tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(encode(draw(2)))
    assert read_image(file).tobytes() == read_image(str(file)).tobytes() == read_image(file.read_bytes()).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(encode, orientation):
    """The eight orientations of the EXIF standard, undone by their definition on an array."""
    upright = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif))
    assert np.array_equal(pixels(image), upright)
    assert 0x0112 not in image.getexif()


def test_sixteen_bits_are_scaled_not_clipped(encode):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    for format in ("PNG", "TIFF", "PPM"):
        image = read_image(encode(Image.fromarray(values), format))
        assert pixels(image)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255], format


def test_sixteen_bits_with_an_orientation(encode):
    exif = Image.Exif()
    exif[0x0112] = 3
    image = read_image(encode(Image.fromarray(np.array([[0, 65535]], dtype=np.uint16)), "PNG", exif=exif))
    assert pixels(image)[0, :, 0].tolist() == [255, 0]


def test_pixels_without_a_known_white_are_refused(encode):
    for values in (np.array([[0.0, 0.5]], dtype=np.float32), np.array([[0, 70000]], dtype=np.int32)):
        with pytest.raises(DataError, match="no known white"):
            read_image(encode(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette(draw, encode, mode):
    image = draw(3, mode=mode)
    assert np.array_equal(pixels(read_image(encode(image))), pixels(image.convert("RGB")))


def test_transparency_goes_over_white(encode):
    rgba = Image.new("RGBA", (3, 1))
    rgba.putdata([(10, 20, 30, 255), (10, 20, 30, 0), (10, 20, 30, 128)])
    half = [round(value * 128 / 255 + 255 * 127 / 255) for value in (10, 20, 30)]
    got = pixels(read_image(encode(rgba)))[0].tolist()
    assert got[:2] == [[10, 20, 30], [255, 255, 255]]
    assert np.abs(np.array(got[2]) - half).max() <= 1


def test_transparent_grey_palette_and_keyed_colour(encode):
    grey = Image.new("LA", (2, 1))
    grey.putdata([(7, 255), (7, 0)])
    assert pixels(read_image(encode(grey)))[0, :, 0].tolist() == [7, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 50, 60, 70])
    palette.putpixel((1, 0), 1)
    assert pixels(read_image(encode(palette, transparency=0)))[0].tolist() == [[255, 255, 255], [50, 60, 70]]
    keyed = Image.new("RGB", (2, 1), (1, 2, 3))
    keyed.putpixel((1, 0), (4, 5, 6))
    assert pixels(read_image(encode(keyed, transparency=(1, 2, 3))))[0].tolist() == [[255, 255, 255], [4, 5, 6]]


def test_cmyk_jpeg(encode):
    """Ink on paper: red = 255 - cyan - black and so on, within what JPEG loses."""
    inks = {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (0, 255, 255), (0, 255, 255, 0): (255, 0, 0), (0, 0, 0, 255): (0, 0, 0)}
    for ink, colour in inks.items():
        got = pixels(read_image(encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)))
        assert np.abs(got - np.array(colour)).max() <= 4, ink


def bomb() -> bytes:
    """A PNG header of 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_files_give_a_reason(draw, encode, tmp_path):
    jpeg = encode(draw(4, (64, 64)), "JPEG")
    frames = [draw(5), draw(6)]
    two = {"save_all": True, "append_images": frames[1:], "duration": 100}
    just_over = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 10_000, MAX_PIXELS // 10_000 + 1, 1, 24, 0, 0, 0, 0, 0, 0)
    cases = {
        b"": "empty file",
        b"not a picture at all": "not a picture",
        jpeg[: len(jpeg) // 2]: "truncated",
        jpeg[:10]: "not a picture|truncated|cannot be",
        encode(draw(4, (64, 64)))[:300]: "truncated",
        encode(frames[0], "GIF", **two): "2 frames .animated",
        encode(frames[0], "WEBP", **two): "2 frames .animated",
        encode(frames[0], "PNG", **two): "2 frames .animated",
        encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]): "2 pages",
        bomb(): "decompression bomb",
        just_over: "decompression bomb",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n": "not a picture",
    }
    for data, reason in cases.items():
        with pytest.raises(DataError, match=reason):
            decode_image(data)
    file = tmp_path / "broken.jpg"
    file.write_bytes(jpeg[: len(jpeg) // 2])
    with pytest.raises(DataError, match=r"broken\.jpg: .*truncated"):
        read_image(file)
    with pytest.raises(DataError, match=r"missing\.png: .*No such file"):
        read_image(tmp_path / "missing.png")


def test_a_phones_two_frame_jpeg_is_its_photo(draw, encode):
    first, second = draw(7, (32, 32)), draw(8, (32, 32))
    both = encode(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(pixels(read_image(both)) - pixels(read_image(encode(first, "JPEG", quality=95)))).max() == 0


@given(data=st.data())
def test_damaged_files_never_raise_anything_else(draw, encode, data):
    format = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
    whole = bytearray(encode(draw(9, (24, 24)), format))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(whole)))
    try:
        image = read_image(bytes(whole[:cut]))
    except RediffuseError:
        return
    assert image.mode == "RGB"


def test_digest_tells_pixels_and_shape_apart(draw):
    image = draw(1, (12, 10))
    assert pixels_sha256(image) == pixels_sha256(image.copy())
    assert pixels_sha256(image) != pixels_sha256(Image.frombytes("RGB", (10, 12), image.tobytes()))
    assert len({pixels_sha256(draw(seed)) for seed in range(20)}) == 20


def test_tensor_round_trip_is_exact():
    every = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    tensor = to_tensor(every)
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.float32
    assert (tensor.min(), tensor.max()) == (0, 1)
    assert to_pil(tensor).tobytes() == every.tobytes()
    assert to_pil(tensor.to(torch.float64) * 3 - 1).getpixel((0, 0)) == (0, 0, 0)


def test_to_tensor_keeps_rows_and_channels_in_place():
    image = Image.new("RGB", (3, 2))
    image.putpixel((2, 1), (0, 255, 0))
    assert to_tensor(image).nonzero().tolist() == [[1, 1, 2]]


def test_to_pil_refuses_nan_and_shapes():
    with pytest.raises(DataError, match="NaN"):
        to_pil(torch.full((3, 2, 2), torch.nan))
    with pytest.raises(DataError, match=r"\(1, 3, 2, 2\)"):
        to_pil(torch.zeros(1, 3, 2, 2))


def test_to_rgb_leaves_its_argument_alone(draw):
    image = draw(1, mode="RGBA")
    before = image.tobytes()
    to_rgb(image).putpixel((0, 0), (1, 2, 3))
    assert image.tobytes() == before


def test_directory_in_place_of_a_file(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)
