"""Fine-tune the brain-MRI bundle on real slices, split by patient block, with and without pretrained weights and boxes.

    python benchmarks/brain_mri.py DATA [--seeds 0 1 2] [--starts imagenet imagenet_without_boxes none]

``DATA`` is a folder with an ``index.csv`` whose columns are image, label, block, and box_xc, box_yc, box_w and box_h,
where the tumour lies. For every seed (which chooses the split, too) and every start the stock command is run; each
run's ``metrics.json`` and their summary go to ``results/brain_mri/``. The README's table is rendered from the summary
(``make docs``).
"""

from bundle_runs import main

if __name__ == "__main__":
    main(
        "brain_mri_classification",
        "brain_mri",
        ("--patient_column", "block"),
        {
            "imagenet": (),
            "imagenet_without_boxes": ("--box_columns", "null"),
            "none": ("--weights", "none"),
        },
        __doc__.splitlines()[0],
    )
