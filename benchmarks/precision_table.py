"""What each precision costs on a real teacher: a Markdown table of bytes and KL at two temperatures.

    python benchmarks/precision_table.py fashion_mnist fashion_teacher all

Run it in a project folder whose teacher is there. Rows are spread over samples and views; errors are those of the rows.
"""

import argparse

from edpipe.cli.commands.soft_label_plan import measure_teacher
from edpipe.params.load import load_params
from edpipe.params.plans.plan import TeacherUse
from edpipe.params.soft_labels import StorageKnobs
from edpipe.soft_labels.encoding.costs import candidates, measure

TEMPERATURES = (4.0, 1.0)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for word in ("dataset", "teacher", "subset"):
        parser.add_argument(word)
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    use = TeacherUse(teacher=options.teacher, subset=options.subset)
    trial = measure_teacher(load_params(), options.dataset, use, options.rows)
    print(
        "| precision | bytes a row | "
        + " | ".join(f"mean, largest, certified KL, τ = {t:g}" for t in TEMPERATURES)
        + " |"
    )
    print("|---|---|" + "---|" * len(TEMPERATURES))
    for cost in candidates(trial.logits.shape[1], StorageKnobs()):
        found = [measure(cost, trial.logits, trial.sample_ids, temperature) for temperature in TEMPERATURES]
        cells = (f"{one.mean_kl:.1e}, {one.max_kl:.1e}, {one.bound:.1e}" for one in found)
        print(f"| {cost.name} | {cost.row_bytes} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
