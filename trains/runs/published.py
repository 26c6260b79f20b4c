"""Published test scores, to print beside ours. Accuracy and F1 in percent."""

_MOSI_KEYS = ("MAE", "Corr", "Has0_acc_2", "Non0_acc_2", "Has0_F1_score", "Non0_F1_score", "Mult_acc_5", "Mult_acc_7")
_SIMS_KEYS = ("MAE", "Corr", "Mult_acc_2", "F1_score", "Mult_acc_3", "Mult_acc_5")


def _row(keys: tuple[str, ...], *values: float) -> dict[str, float]:
    return dict(zip(keys, values, strict=False))


# dataset -> source -> metric -> value. "MMSA" is the authors' own rerun, with their later framework.
PUBLISHED = {
    "mosi": {
        "paper": _row(_MOSI_KEYS, 0.713, 0.798, 84.00, 85.98, 84.42, 85.95),
        "MMSA": _row(_MOSI_KEYS, 0.7080, 0.7963, 83.44, 85.46, 83.36, 85.43, 53.47, 46.67),
    },
    "mosei": {
        "paper": _row(_MOSI_KEYS, 0.530, 0.765, 82.81, 85.17, 82.53, 85.30),
        "MMSA": _row(_MOSI_KEYS, 0.5309, 0.7649, 83.76, 85.15, 83.82, 84.90, 55.53, 53.87),
    },
    "sims": {
        "paper": _row(_SIMS_KEYS, 0.419, 0.616, 80.74, 80.78),
        "human T, A, V": _row(_SIMS_KEYS, 0.408, 0.647, 81.32, 81.73),
        "MMSA": _row(_SIMS_KEYS, 0.4250, 0.5952, 80.04, 80.44, 65.47, 41.53),
    },
    "simsv2": {"MMSA": _row(_SIMS_KEYS, 0.3106, 0.6952, 79.69, 79.76, 72.61, 52.77)},
}

# Table 4 of the paper: MOSI with fewer tasks.
ABLATION = {
    "M": _row(_MOSI_KEYS, 0.730, 0.781),
    "MV": _row(_MOSI_KEYS, 0.732, 0.775),
    "MA": _row(_MOSI_KEYS, 0.728, 0.790),
    "MT": _row(_MOSI_KEYS, 0.731, 0.789),
    "MAV": _row(_MOSI_KEYS, 0.719, 0.789),
    "MTV": _row(_MOSI_KEYS, 0.714, 0.797),
    "MTA": _row(_MOSI_KEYS, 0.712, 0.797),
}


def published_scores(dataset: str, tasks: str) -> dict[str, dict[str, float]]:
    """source -> metric -> value, for a dataset and the letters of the tasks; {} where nothing was published."""
    if set(tasks) == set("MTAV"):
        return PUBLISHED.get(dataset, {})
    same = [row for letters, row in ABLATION.items() if set(letters) == set(tasks)]
    return {"paper": same[0]} if same and dataset == "mosi" else {}
