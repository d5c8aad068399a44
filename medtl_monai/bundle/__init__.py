"""What the bundles' configurations call: the beginning, the middle and the end of a run."""

from .beginning import (
    default_amp,
    default_amp_dtype,
    default_device,
    find_root,
    models_folder,
    new_output_dir,
    quieten_monai,
    settle,
    start,
)
from .cached import CacheFeatures
from .calibrate import Calibration
from .cases import Parts, read_parts
from .check import bundle_for, check_folder, first_batch, render_folder, why_refused
from .choose import box_columns, choose_strategy, scoring_loaders, training_items, training_loader, wants_boxes
from .describe import new_model, read_model, scoring_inferer, training_preparation
from .domains import Domains, named_domains, tell_domains
from .handlers import Checkpoints, EpochSeed, History, Patience, SavePredictions, as_handler
from .keys import check_keys, check_nested, check_values, given_keys
from .levels import score_patients, suspicion
from .masks import SaveMasks
from .members import Ensemble, Member, cycle_length
from .origin import follow, image_statistics, read_backbone
from .pretrained import Transfer, fill, load_network, transfer
from .processes import leave_processes
from .rank import rank_weights, render_rank
from .record import close_record, configuration, open_output
from .report import Predicted, Report, data_format, install_model, predict
from .resume import Resume
from .scores import accuracy, log_loss, mean_auc
from .segmentation import middle_share, read_stacks, structure_values, unmasked
from .segmented import SegmentationReport, segment
from .synthetic import images_of, write_synthetic
from .target import SourceImages, TargetImages, target_images
from .unreadable import EveryFile, LeftOut

__all__ = [
    "CacheFeatures",
    "Calibration",
    "Checkpoints",
    "Domains",
    "Ensemble",
    "EpochSeed",
    "EveryFile",
    "History",
    "LeftOut",
    "Member",
    "Parts",
    "Patience",
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
    "box_columns",
    "bundle_for",
    "check_folder",
    "check_keys",
    "check_nested",
    "check_values",
    "choose_strategy",
    "close_record",
    "configuration",
    "cycle_length",
    "data_format",
    "default_amp",
    "default_amp_dtype",
    "default_device",
    "fill",
    "find_root",
    "first_batch",
    "follow",
    "given_keys",
    "image_statistics",
    "images_of",
    "install_model",
    "leave_processes",
    "load_network",
    "log_loss",
    "mean_auc",
    "middle_share",
    "models_folder",
    "named_domains",
    "new_model",
    "new_output_dir",
    "open_output",
    "predict",
    "quieten_monai",
    "rank_weights",
    "read_backbone",
    "read_model",
    "read_parts",
    "read_stacks",
    "render_folder",
    "render_rank",
    "score_patients",
    "scoring_inferer",
    "scoring_loaders",
    "segment",
    "settle",
    "start",
    "structure_values",
    "suspicion",
    "target_images",
    "tell_domains",
    "training_items",
    "training_loader",
    "training_preparation",
    "transfer",
    "unmasked",
    "wants_boxes",
    "why_refused",
    "write_synthetic",
]
