"""Synthetic scenes: pictures with a known answer, to measure what *inside* and *outside* bring.

docs/STUDY.md tells what they show ("The scenes are honest"). Nothing depends on a cue's state but
the cue itself and the names of its objects: painting a scene in either state gives the same bytes
elsewhere. Horizontal flips keep every meaning, vertical ones do not. The same library versions give
the same bytes.
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
