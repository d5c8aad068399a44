"""Fine-tune the chest X-ray bundle on real radiographs, split by patient, with and without pretrained weights.

    python benchmarks/chest_xray.py DATA [--seeds 0 1 2] [--starts imagenet none]

``DATA`` is a folder with an ``index.csv`` whose columns are image, label and patient. Everything goes to
``results/chest_xray/``, as for the brain bundle.
"""

from bundle_runs import main

if __name__ == "__main__":
    main(
        "chest_xray_classification",
        "chest_xray",
        (),
        {"imagenet": (), "none": ("--weights", "none")},
        __doc__.splitlines()[0],
    )
