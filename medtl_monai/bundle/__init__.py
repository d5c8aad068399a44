"""What the bundles' configurations call: the beginning, the middle and the end of a run."""

from .cached import CacheFeatures
from .calibrate import Calibration
from .cases import Parts, read_parts
from .domains import Domains, named_domains, tell_domains
from .handlers import Checkpoints, EpochSeed, History, Resume, SavePredictions, as_handler
from .levels import score_patients, suspicion
from .members import Member, cycle_length, ensemble_members
from .processes import leave_processes
from .rank import rank_weights, render_rank, slice_preprocessing
from .report import Predicted, Report, open_output, predict
from .scores import accuracy, log_loss, mean_auc
from .segmentation import SaveMasks, SegmentationReport, middle_share, read_stacks, segment, structure_values, unmasked
from .start import check_keys, check_values, find_root, new_output_dir, quieten_monai, start, write_config
from .synthetic import images_of, write_synthetic
from .target import SourceImages, TargetImages, target_images
from .transfer import Transfer, build_network, image_statistics, load_model, model_settings, transfer

__all__ = [
    "CacheFeatures",
    "Calibration",
    "Checkpoints",
    "Domains",
    "EpochSeed",
    "History",
    "Member",
    "Parts",
    "Predicted",
    "Report",
    "Resume",
    "SaveMasks",
    "SavePredictions",
    "SegmentationReport",
    "SourceImages",
    "TargetImages",
    "Transfer",
    "accuracy",
    "as_handler",
    "build_network",
    "check_keys",
    "check_values",
    "cycle_length",
    "ensemble_members",
    "find_root",
    "image_statistics",
    "images_of",
    "leave_processes",
    "load_model",
    "log_loss",
    "mean_auc",
    "middle_share",
    "model_settings",
    "named_domains",
    "new_output_dir",
    "open_output",
    "predict",
    "quieten_monai",
    "rank_weights",
    "read_parts",
    "read_stacks",
    "render_rank",
    "score_patients",
    "segment",
    "slice_preprocessing",
    "start",
    "structure_values",
    "suspicion",
    "target_images",
    "tell_domains",
    "transfer",
    "unmasked",
    "write_config",
    "write_synthetic",
]
