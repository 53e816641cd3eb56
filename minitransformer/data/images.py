"""Images in, arrays of pixels and classes out."""

import gzip
import io
import random
import zlib
from collections.abc import Sequence

import numpy as np

from minitransformer.data.cache import progress
from minitransformer.data.splits import Files, Parts, WrongFile, divide, mixed

LARGEST_SIDE = 256
MNIST1D_EXAMPLES = 20_000
MNIST1D_SEED = 42
TEN_DIGITS = tuple("0123456789")


def from_folders(files: Files) -> Parts:
    """Images in folders named after their classes: CLASS/NAME.jpg, or train/CLASS/, val/CLASS/ and test/CLASS/.

    Where there is no val/, a tenth of the training images is drawn for it, and so for test/. All images are square and
    of one size, and grey if the first is. Two versions of the JPEG library may decode one file to pixels that are a
    grey level apart; so a fingerprint is taken of the files' bytes and not of these arrays.

    Raises: WrongFile.
    """
    pixels: list[np.ndarray] = []
    labels: list[str] = []
    rows: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for name, content in progress(files, "images"):
        *_, split, label, _ = ["", "", *name.split("/")]
        image = _decoded(name, content, grey=pixels[0].shape[0] == 1 if pixels else None)
        if pixels and image.shape != pixels[0].shape:
            raise WrongFile(f"{name} is {image.shape[1]} pixels wide and the images before it {pixels[0].shape[1]}: make all of one size")
        rows[split if split in rows else "train"].append(len(pixels))
        pixels.append(image)
        labels.append(label)
    pool, tenth = rows["train"], len(rows["train"]) // 10
    train, val, test = divide([[row] for row in pool], 0 if rows["val"] else tenth, 0 if rows["test"] else tenth)
    classes = tuple(sorted(set(labels)))
    if not 2 <= len(classes) <= 256:
        raise WrongFile(f"{len(classes)} class{'es' * (len(classes) != 1)} of images: between 2 and 256 folders, one for each, are needed")
    target = np.array([classes.index(label) for label in labels])
    return _parts(np.stack(pixels), target, (train, val or mixed(rows["val"]), test or mixed(rows["test"])), classes)


def digits(files: Files) -> Parts:
    """The 1,797 8x8 images of handwritten digits that scikit-learn carries: lines of 64 grey levels from 0 to 16, and the digit.

    The levels are spread to 0 to 255. A sixth is held out for validation and a sixth for test: 1,199 train, 299 and 299.
    Raises: WrongFile.
    """
    ((name, content),) = files
    try:
        table = np.array([line.split(",") for line in gzip.decompress(content).decode().splitlines()], np.float64)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise WrongFile(f"{name} is no compressed table of numbers ({error})") from error
    if table.ndim != 2 or table.shape[1] != 65:
        raise WrongFile(f"{name} has no lines of 65 numbers")
    pixels = np.rint(table[:, :64] * 255 / 16).reshape(-1, 1, 8, 8)
    return _parts(pixels, table[:, 64], _sixths(len(table)), TEN_DIGITS)


def mnist1d(files: Files) -> Parts:
    """The signals that `draw_mnist1d` makes, (n, 1, 40): a sixth held out for validation and a sixth for test."""
    ((name, content),) = files
    rows = np.frombuffer(content, np.uint8).reshape(-1, 41)
    return _parts(rows[:, None, 1:], rows[:, 0], _sixths(len(rows)), TEN_DIGITS)


def draw_mnist1d() -> bytes:
    """20,000 signals of MNIST-1D (Greydanus 2020), each one byte for its digit and forty for its values.

    They come from the package's own function and a fixed seed, are standardised by it, and stored in steps of 1/32 from
    -4 to 4: these steps are so much coarser than rounding errors that any machine stores the same bytes.
    """
    from mnist1d.data import get_dataset_args, make_dataset

    settings = get_dataset_args()
    settings.num_samples, settings.train_split, settings.seed = MNIST1D_EXAMPLES, 1.0, MNIST1D_SEED
    states = random.getstate(), np.random.get_state()  # the package seeds the two global generators
    try:
        made = make_dataset(settings)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    levels = np.clip(np.rint(made["x"] * 32) + 128, 0, 255)
    return np.concatenate([made["y"][:, None], levels], axis=1).astype(np.uint8).tobytes()


def _sixths(n: int) -> tuple[list[int], list[int], list[int]]:
    return divide([[row] for row in range(n)], n // 6, n // 6)


def _parts(pixels: np.ndarray, target: np.ndarray, splits: Sequence[Sequence[int]], classes: tuple[str, ...]) -> Parts:
    inputs, targets = pixels.astype(np.uint8), target.astype(np.uint8)
    return Parts(*({"input": inputs[rows], "target": targets[rows]} for rows in map(list, splits)), {"target": classes})


def _decoded(name: str, content: bytes, grey: bool | None) -> np.ndarray:
    """(channels, side, side) levels from 0 to 255; `grey`: one channel, three, or as the image has it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            width, height = image.size
            if width != height or width > LARGEST_SIDE:
                raise WrongFile(f"{name} is {width}x{height} pixels: square images of at most {LARGEST_SIDE} a side are read")
            if grey is None:
                grey = image.mode in ("1", "L")
            levels = np.asarray(image.convert("L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise WrongFile(f"{name} cannot be read as a JPEG or PNG image ({type(error).__name__})") from error
    return levels.reshape(height, width, -1).transpose(2, 0, 1)
