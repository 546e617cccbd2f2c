"""Figures of training, predicting, data and several devices, on processors."""

from __future__ import annotations

from typing import Any

from figures.logged import link, markdown, results, rounded

# Of each machine the remark of the result that stands for it.
TRAINING = {"A": "columns", "B": "zen5_fourier", "C": "zen4_grouped"}
PREDICTION = {"A": "columns", "B": "zen5_fourier_again", "C": "zen4_10_points"}
PRECISIONS = {"A": ("fp32",), "B": ("fp32", "bf16"), "C": ("fp32", "bf16")}
MACHINES = {"AMD EPYC, family 26": "B", "AMD EPYC, family 25": "C"}  # by processor, where told
NAMES = {"tensorflow": "tf.data", "dataloader": "PyTorch's DataLoader", "grain": "Grain"}
OURS = {"fp32": "deepcnn", "bf16": "deepcnn, bf16"}  # as results name them


def speeds(remark: str) -> dict[str, float]:
    """Return a run's images a second of training the tutorial: the medians."""
    medians = results("tutorial_training")[remark]["medians"]
    ours = {precision: medians[name][precision] for precision, name in OURS.items()}
    return {"TensorFlow": medians["tensorflow"]["fp32"], **ours}


def to_tensorflow(remark: str, precision: str, digits: int = 2) -> str:
    """Return a run's ratio to TensorFlow."""
    found = speeds(remark)
    return f"{rounded(found[precision] / found['TensorFlow'], digits)} ×"


def training() -> str:
    """Return the speeds of each machine's run."""
    rows: list[tuple[str, ...]] = [
        ("TensorFlow", *(f"{speeds(TRAINING[machine])['TensorFlow']:,}" for machine in "ABC"))
    ]
    for precision in OURS:
        cells = (
            f"{speeds(TRAINING[m])[precision]:,}: {to_tensorflow(TRAINING[m], precision)}"
            if precision in PRECISIONS[m]
            else ""
            for m in "ABC"
        )
        rows.append((precision, *cells))
    rows.append(("log", *(link("tutorial_training", TRAINING[machine]) for machine in "ABC")))
    return markdown(("", "A", "B", "C"), rows)


def rounds_of(remark: str) -> list[float]:
    """Return the ratio of bf16 to TensorFlow in each round."""
    rates = results("tutorial_training")[remark]["rates"]
    both = zip(rates[OURS["bf16"]]["bf16"], rates["tensorflow"]["fp32"], strict=True)
    return [ours / theirs for ours, theirs in both]


def training_runs() -> str:
    """Return all runs on B and C, whose family the log tells."""
    rows = []
    for remark, result in results("tutorial_training").items():
        machine = MACHINES.get(result["environment"].get("processor", ""))
        if machine:
            single = rounds_of(remark)
            spread = f"{rounded(min(single))} to {rounded(max(single))} ×"
            ratios = (to_tensorflow(remark, precision) for precision in OURS)
            rows.append((f"`{remark}`", machine, f"{result['rounds']}", *ratios, spread))
    return markdown(("remark", "machine", "rounds", *OURS, "bf16, single rounds"), rows)


def fourier_step() -> str:
    """Return how much less time a step takes with a Fourier transform."""
    (found,) = (r["found"] for r in results("fourier").values())
    steps = found["ms a step, before (commit c76e6c4) and now in turns in one process"]

    def less(what: str) -> str:
        saved = sorted(100 - 100 * run["median of the ratios"] for run in steps[what])
        return f"{saved[0]:.0f} to {saved[-1]:.0f} %"

    return (
        f"{less('tutorial, bf16, 120 steps each, three processes')} less time with it in bf16 and "
        f"{less('tutorial, fp32, 60 steps each, three processes')} less in fp32"
    )


def layers(remark: str) -> str:
    """Return what `deepcnn bench` found of each layer."""

    def cells(found: dict[str, Any]) -> tuple[str, str]:
        share = "" if found["share"] is None else f"{100 * found['share']:.0f} %"
        return f"{found['milliseconds']:.2f} ms", share

    rows = [
        (layer["name"], *cells(layer["forward"]), *cells(layer["backward"]))
        for layer in results("bench")[remark]["layers"]
    ]
    return markdown(("layer", "forward", "of the limit", "backward", "of the limit"), rows)


def limit(remark: str) -> str:
    """Return the fastest that a machine does."""
    return f"{max(results('bench')[remark]['limits'].values()):,.0f} GFLOP/s"


def conv2_in_tiles() -> str:
    """Return B's times of the second convolution before the Fourier transform."""
    (conv2,) = (x for x in results("bench")["zen5"]["layers"] if x["name"] == "conv2")
    both = (conv2[way]["milliseconds"] for way in ("forward", "backward"))
    return " and ".join(f"{ms:.2f}" for ms in both) + " ms"


def medians(machine: str, program: str, metric: str) -> float:
    """Return a median of predicting, on a machine."""
    found: float = results("prediction")[PREDICTION[machine]]["medians"][program][metric]
    return found


def faster(machine: str, kind: str, preset: str, other: str = "onnxruntime") -> str:
    """Return how many times as fast as another program batches are predicted."""
    metric = f"{preset}: images/s, batch 256"
    ratio = medians(machine, OURS[kind], metric) / medians(machine, other, metric)
    return f"{rounded(ratio)} ×"


def one_image(machine: str, kind: str, preset: str) -> str:
    """Return the milliseconds of one image, and those of ONNX Runtime."""
    programs = (OURS[kind], "onnxruntime")
    both = (medians(machine, program, f"{preset}: ms, batch 1") for program in programs)
    return "; ".join(f"{rounded(ms)} ms" for ms in both)


def predicting() -> str:
    """Return ratios to other programs, and the time of one image."""
    columns = [(machine, kind) for machine in "ABC" for kind in PRECISIONS[machine]]
    rows = [
        (f"`{preset}`, to {name}", *(faster(*column, preset, other) for column in columns))
        for preset, name, other in (
            ("tutorial", "ONNX Runtime 1.31", "onnxruntime"),
            ("tutorial", "TensorFlow 2.21", "tensorflow"),
            ("quick", "ONNX Runtime 1.31", "onnxruntime"),
        )
    ]
    rows += [
        (
            f"`{preset}`, one image; ONNX Runtime",
            *(one_image(*column, preset) for column in columns),
        )
        for preset in ("tutorial", "quick")
    ]
    links = (link("prediction", PREDICTION[machine]) for machine, _ in columns)
    return markdown(("", *(", ".join(column) for column in columns)), [*rows, ("log", *links)])


def predicting_before() -> str:
    """Return the ratios of the run before B's."""
    found = results("prediction")["zen5_fourier"]["medians"]
    metric = "tutorial: images/s, batch 256"
    bf16, fp32 = (
        f"{rounded(found[OURS[kind]][metric] / found['onnxruntime'][metric])} ×"
        for kind in ("bf16", "fp32")
    )
    return f"{bf16} ONNX Runtime's speed for `tutorial` in bf16, {fp32} in fp32"


def runtimes() -> str:
    """Return how fast each runtime answers, and how soon after a process has started."""
    medians = results("runtimes")[""]["medians"]
    firsts = results("first_answer")[""]["medians"]
    rows = []
    for name, found in medians.items():
        runtime, precision = name.split(", ")
        cells = [runtime, precision]
        for preset in ("tutorial", "quick"):
            cells.append(f"{found[f'{preset}: images/s, batch 256']:,}")
            cells.append(f"{rounded(found[f'{preset}: ms, batch 1'])} ms")
        first = firsts[runtime]["s to the answer"]
        rows.append((*cells, f"{rounded(first)} s" if precision == "fp32" else ""))
    heads = [f"`{preset}`, {what}" for preset in ("tutorial", "quick") for what in ("256", "one")]
    return markdown(("by", "in", *heads, "first answer"), rows)


def share_of_torch() -> str:
    """Return how much of the time to the first answer goes into importing torch."""
    share = results("first_answer")[""]["medians"]["torch"]["share importing torch"]
    return f"{rounded(100 * share, 0)} %"


def agreement() -> str:
    """Return how many test images at least get the class that torch gives them in fp32."""

    def least(program: str) -> str:
        told = [
            text.split(" of ")
            for result in results("prediction").values()
            if program in result["notes"]
            for text in result["notes"][program]["agreement with torch"].values()
        ]
        return rounded(min(100 * int(same) / int(total) for same, total in told))

    return (
        f"{least(OURS['bf16'])} % of the test images in bf16, and {least(OURS['fp32'])} % in fp32,"
    )


def inputs(ours: str, other: str) -> tuple[str, str, str]:
    """Return two speeds of distorting, and how many times as fast ours is."""
    found = results("inputs")[""]["medians"]
    speed, theirs = (f"{found[name]:,.0f}" for name in (ours, other))
    return speed, theirs, f"{found[ours] / found[other]:.1f} ×"


def data() -> str:
    """Return the figures of distorting, streaming and reading."""
    rows = []
    for feed in ("preloaded memory", "streamed files", "queued files"):
        for other in ("tensorflow", "dataloader", "grain"):
            speed, theirs, ratio = inputs(feed, f"{other} {feed.split()[1]}")
            what = f"distorted inputs, {feed.replace(' ', ' from ')}, against {NAMES[other]}"
            rows.append((what, f"{speed} to {theirs} images/s: {ratio}", link("inputs")))
    streamed, read = results("streaming_memory")[""], results("reading")[""]["medians"]
    rows.append(
        (
            f"streaming {streamed['gigabytes']:.0f} GB: largest anonymous memory",
            f"{streamed['peak_anonymous_megabytes']} MB",
            link("streaming_memory"),
        )
    )
    seconds = f"{rounded(read['cifar10 by name'])} s"
    rows.append(("reading and verifying CIFAR-10's training set", seconds, link("reading")))
    return markdown(("what", "figure", ""), rows)


def reading_pictures() -> str:
    """Return how long 50,000 pictures take to read, beside what Pillow takes on all cores."""
    remark = "heads without Pillow, records in the processes"
    found = results("reading_pictures")[remark]["medians"]
    ours, least = found["deepcnn"], found["Pillow, all cores"]
    rows = [
        (name, f"{rounded(ours[form], 1)} s", f"{rounded(ours[form] / least[form])} ×")
        for form, name in (("png", "PNG"), ("jpeg", "JPEG"), ("tfrecord", "TFRecord of JPEG"))
    ]
    return markdown(("50,000 pictures", "time", f"to Pillow ({link('reading_pictures')})"), rows)


def devices() -> str:
    """Return the figures of several devices, and of faults."""
    found = results("devices")["one_tower"]["medians"]
    one = found["one device"]["fp32"]
    rows = []
    for many in ("two towers", "two processes"):
        what = f"`tutorial`, batch 128, {many}, against one device"
        ratio = f"{rounded(found[many]['fp32'] / one)} ×"
        rows.append((what, ratio, link("devices", "one_tower")))
    faults = results("faults")[""]
    kills = faults["while_it_trains"].values()
    count, named = (sum(kind[key] for kind in kills) for key in ("faults", "named"))
    what = f"{count} kills and stops of one of two processes while they train: named by the other"
    rows.append((what, f"{named}", link("faults")))
    what = "trainings that suffered these and others: ended with the bits of an unhurt one"
    told = f"{faults['identical_at_the_end']} of {faults['trainings']}"
    return markdown(("what", "figure", ""), [*rows, (what, told, link("faults"))])
