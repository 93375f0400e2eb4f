"""ION (Inside-Outside Net, CVPR 2016) for Detectron2.

Importing this package registers ION's parts with Detectron2: the meta-architecture ``ION``, the
backbones ``build_ion_vgg_backbone`` and ``build_ion_context_backbone``, the ROI heads
``IONROIHeads``, the box head ``IONBoxHead`` and the segmentation head ``IONSegHead``.
:func:`add_ion_config` adds their config keys.
"""

from ._require import require_detectron2

require_detectron2()

from . import modeling  # noqa: E402  (registers ION's parts)
from .config import add_ion_config  # noqa: E402
from .errors import IONError  # noqa: E402

__all__ = ["IONError", "add_ion_config", "modeling"]

__version__ = "0.1.0"
