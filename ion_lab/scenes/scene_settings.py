"""What a set of scenes is made of: families, classes, and the arguments of one set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ion_d2.errors import IONError
from ion_lab.scenes.cues import BALANCED, BAND, MARK, Cue
from ion_lab.scenes.geometry import safe_distance

FAMILY_CLASSES = {
    "outside": ("lamp_day", "lamp_night"),
    "outside-far": ("kite_disc", "kite_ring"),
    "ordinary": ("cross", "triangle"),
    "inside": ("tile_checked", "tile_striped"),
}
"""The two classes of each family; of the *outside* ones, in the order of their cue's states."""

BORDER = 3
"""Free pixels between any two things, and between a cue and the things below it."""

_SHORT_SIDE = 240
_REGION_CUES = {"band": BAND, "balanced": BALANCED}
_LARGEST_OUTSIDE_OBJECT = 40
_LARGEST = 8192  # of which a picture takes 200 MB


@dataclass(frozen=True)
class SceneSettings:
    """Arguments that, with a picture's split and index, decide its every pixel.

    Attributes:
        families: of ``FAMILY_CLASSES``; order and repetition do not matter.
        seed: of all randomness, 0 or more.
        size: side of the square pictures in pixels.
        distance: least number of rows between a cue and the objects it decides about; None takes
            what keeps the cue out of the receptive field of VGG16's conv5 when the picture is
            resized to a short side of 240 px or more.
        cue: of the family "outside": "band" or "balanced".

    Raises:
        IONError: an unknown name, a value out of range, or a picture too small for the distance.
    """

    families: Sequence[str] = ("outside", "inside", "ordinary")
    seed: int = 0
    size: int = 256
    distance: int | None = None
    cue: str = "band"

    def __post_init__(self) -> None:
        object.__setattr__(self, "families", _known_families(self.families))
        if self.cue not in _REGION_CUES:
            raise IONError(f"unknown cue {self.cue!r}; choose one of {', '.join(_REGION_CUES)}")
        if self.seed < 0:
            raise IONError(f"seed is {self.seed}; give 0 or a positive integer")
        if self.distance is not None and self.distance < BORDER:
            raise IONError(f"distance is {self.distance} px; give at least {BORDER}")
        self._check_size()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes; label i + 1 in the segmentation is class i."""
        return tuple(name for family in self.families for name in FAMILY_CLASSES[family])

    @property
    def min_distance(self) -> int:
        """Rows that lie at least between a cue and its objects, in pixels."""
        if self.distance is not None:
            return self.distance
        return safe_distance(min(1.0, _SHORT_SIDE / self.size))

    @property
    def cues(self) -> dict[str, tuple[Cue, int]]:
        """The cue of each *outside* family with its first row, from the top downwards."""
        placed, top = {}, 0
        for family, cue in (("outside", _REGION_CUES[self.cue]), ("outside-far", MARK)):
            if family in self.families:
                placed[family] = (cue, top)
                top += cue.height + BORDER
        return placed

    @property
    def cue_bottom(self) -> int:
        """First row below all cues."""
        return max((top + cue.height for cue, top in self.cues.values()), default=0)

    def first_row(self, family: str) -> int:
        """Highest row at which an object of ``family`` may begin."""
        if family in self.cues:
            cue, top = self.cues[family]
            return max(top + cue.height + self.min_distance, self.cue_bottom + BORDER)
        return self.cue_bottom + BORDER

    def _check_size(self) -> None:
        lowest = max(self.first_row(family) for family in self.families)
        needed = max(lowest + _LARGEST_OUTSIDE_OBJECT + BORDER, 128)
        if self.size < needed:
            raise IONError(
                f"size is {self.size} px, but these families, cue and distance need at least "
                f"{needed} px; give a larger size or a smaller distance"
            )
        if self.size > _LARGEST:
            raise IONError(f"size is {self.size} px; give at most {_LARGEST}")


def _known_families(families: Sequence[str]) -> tuple[str, ...]:
    if isinstance(families, str):
        families = (families,)
    for name in families:
        if name not in FAMILY_CLASSES:
            raise IONError(
                f"unknown family {name!r} of scenes; choose from {', '.join(FAMILY_CLASSES)}"
            )
    if not families:
        raise IONError(f"no family of scenes given; choose from {', '.join(FAMILY_CLASSES)}")
    return tuple(name for name in FAMILY_CLASSES if name in families)
