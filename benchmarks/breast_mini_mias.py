"""Fine-tune the breast bundle on real mammograms, normal against abnormal, split by patient.

    python benchmarks/breast_mini_mias.py DATA [--seeds 0 1 2] [--starts 224 384]

``DATA`` is mini-MIAS as it is published, or a part of it. The starts are sizes of the pictures in pixels. Everything
goes to ``results/breast_mini_mias/``, as for the brain bundle.
"""

from bundle_runs import main

if __name__ == "__main__":
    main(
        "breast_dbt_classification",
        "breast_mini_mias",
        (),
        {"224": (), "384": ("--image_size", "384", "--batch_size", "16")},
        __doc__.splitlines()[0],
    )
