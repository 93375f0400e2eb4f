"""ION (Inside-Outside Net, CVPR 2016) for Detectron2.

Importing this package registers ION's parts with Detectron2: the meta-architecture ``ION``, the
backbones ``build_ion_vgg_backbone`` and ``build_ion_context_backbone``, the ROI heads
``IONROIHeads``, ``IONCascadeROIHeads`` and ``IONRes5ROIHeads``, the box head ``IONBoxHead`` and the
segmentation head ``IONSegHead``. :func:`add_ion_config` adds their config keys, and :func:`plug_in`
switches them on in another config. For notebooks there are :func:`get_config`,
:func:`build_model`, :func:`build_trainer` and :func:`build_predictor`.
"""

from ._require import require_detectron2

require_detectron2()

from . import modeling  # noqa: E402  (registers ION's parts)
from .api import build_model, build_predictor, build_trainer, get_config  # noqa: E402
from .config import add_ion_config  # noqa: E402
from .errors import IONError  # noqa: E402
from .plugging import plug_in  # noqa: E402

__all__ = [
    "IONError",
    "add_ion_config",
    "build_model",
    "build_predictor",
    "build_trainer",
    "get_config",
    "modeling",
    "plug_in",
]

__version__ = "0.1.0"
