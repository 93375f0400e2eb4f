"""Precomputed proposals: made, converted from other programs' files, and fed to the model.

They travel in Detectron2's proposal files (MODEL.LOAD_PROPOSALS, DATASETS.PROPOSAL_FILES_TRAIN and
PROPOSAL_FILES_TEST); tools/make_proposals.py and tools/proposals.py are the commands.
"""

from .attach import add_proposals, check_proposals, get_dicts, match_proposals, proposal_files
from .proposal_file import Proposals, rank_scores, read_proposals, write_proposals

__all__ = [
    "Proposals",
    "add_proposals",
    "check_proposals",
    "get_dicts",
    "match_proposals",
    "proposal_files",
    "rank_scores",
    "read_proposals",
    "write_proposals",
]
