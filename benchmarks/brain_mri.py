"""Fine-tune the brain-MRI bundle on real slices, split by patient block, with and without pretrained weights.

    python benchmarks/brain_mri.py DATA [--seeds 0 1 2] [--starts imagenet none]

``DATA`` is a folder with an ``index.csv`` whose columns are image, label and block. For every seed (which chooses the
split, too) and both starting points the stock command is run; each run's ``metrics.json`` and their summary
go to ``results/brain_mri/``. The README's table is rendered from the summary (``make docs``).
"""

from bundle_runs import main

if __name__ == "__main__":
    main(
        "brain_mri_classification",
        "brain_mri",
        ("--patient_column", "block"),
        {"imagenet": (), "none": ("--weights", "none")},
        __doc__.splitlines()[0],
    )
