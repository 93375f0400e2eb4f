"""Synthetic scenes: pictures with a known answer, to measure what *inside* and *outside* bring.

A square picture (256 px unless told otherwise) shows things on a cloudy, grainy background of
random, muted color. Four families of two classes each:

outside: ``lamp_day``, ``lamp_night``
    2-4 lamps, 20-40 px, low in the picture. Color, brightness, size, position and orientation are
    drawn in the same way for both classes, and all lamps of a picture are of one class. Which one,
    only the cue at the upper border tells:

    - cue "band" (default): 40 rows tinted warm orange (day) or cool blue (night), equally bright,
      opposite about gray. The picture's mean color differs between the states, which a network
      that normalizes over the whole picture (GroupNorm) can exploit anywhere.
    - cue "balanced": both tints in every picture, two bands of 12 rows in a gray strip of 36;
      warm above cool (day) or cool above warm (night). Color statistics of the whole picture are
      the same in both states. Deeper features respond to the order itself, so even here only a
      network without normalization over the picture is proof against leaks.
outside-far: ``kite_disc``, ``kite_ring``
    The hard variant: 2-4 diamonds, and as cue a single disc or ring of about 20 px and equal
    area, white on dark or black on light, anywhere along the top 24 rows (below the band where
    there is one).
inside: ``tile_checked``, ``tile_striped``
    A cluster of 2x2 to 3x4 squares and discs of 8-14 px, 1-3 px apart, so that several share a
    cell of stride 16. Each tile is of either class, told only by its texture of 2 px squares or
    2 px stripes; mean and contrast of the two are equal.
ordinary: ``cross``, ``triangle``
    0-2 plainly different things of 24-60 px.

Nothing depends on a cue's state but the cue itself and the names of its objects: painting a scene
in either state gives the same bytes elsewhere. Between a cue and its objects lie at least
``distance`` rows; the default keeps the cue out of everything that is pooled from VGG16's conv5
for the object, and for a proposal that begins up to 16 px above it, when pictures are resized to
a short side of 240 px or more (``geometry.safe_distance``). The RPN's own 3x3 convolution sees
farther than conv5. Horizontal flips keep every meaning, vertical ones do not.

Pictures are JPEGs of quality 95 with full chroma: 42 kB each instead of PNG's 117 kB, at an error
of 4 % of the tiles' contrast. The same library versions give the same bytes.
"""

from ion_lab.scenes.compose import SPLITS, Scene, compose_scene
from ion_lab.scenes.scene_set import SceneSet, generate_scenes
from ion_lab.scenes.scene_settings import FAMILY_CLASSES, SceneSettings

__all__ = [
    "FAMILY_CLASSES",
    "SPLITS",
    "Scene",
    "SceneSet",
    "SceneSettings",
    "compose_scene",
    "generate_scenes",
]
