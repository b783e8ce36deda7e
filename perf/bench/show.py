"""The table and the picture."""

# Devices in the order of their columns and bars.
COLOURS = {
    "margay": "#c8553d",
    "margay, no shortcut": "#e5a04b",
    "margay, adaptive": "#d98c5f",
    "margay, busy": "#e5a04b",
    "margay, prefer": "#efc27a",
    "margay trunk": "#8c2f1b",
    "margay native": "#e5a04b",
    "forwarder trunk": "#5d626b",
    "forwarder": "#8a8f98",
    "testpmd": "#c3c7cc",
    "nothing": "#e3e3e3",
    "kernel": "#3f6c8f",
    "kernel rps": "#8fb3cc",
    "kernel flowtable": "#b9d3e3",
}


# A device that lost less than this share was not the limit: the generator was.
LOSS = 0.02


def devices(rows):
    """The names of the devices that were measured, in their order."""
    return [name for name in COLOURS if any(name in row["medians"] for row in rows)]


def table(rows):
    """Lines of two Markdown tables: the medians, and the ratios."""
    order = devices(rows)
    aims = any(row.get("aim") for row in rows)
    yield "| case | unit | " + " | ".join(order) + (" | aim |" if aims else " |")
    yield "|---|---|" + "---:|" * (len(order) + aims)
    for row in rows:
        cells = [row["case"], row["unit"], *(figure(row, name) for name in order)]
        cells += [row.get("aim", "")] if aims else []
        yield "| " + " | ".join(cells) + " |"
    pairs = dict.fromkeys((r["of"], r["to"]) for row in rows for r in row["ratios"])
    pairs = sorted(pairs, key=lambda pair: order.index(pair[0]))
    if not pairs:
        return
    yield ""
    yield "| case | " + " | ".join(f"{of} / {to}" for of, to in pairs) + " |"
    yield "|---|" + "---:|" * len(pairs)
    for row in (row for row in rows if row["ratios"]):
        found = {(r["of"], r["to"]): r for r in row["ratios"]}
        yield f"| {row['case']} | " + " | ".join(interval(found.get(pair)) for pair in pairs) + " |"


def figure(row, name):
    """A median; `≥` where the generator offered no more than that."""
    if name not in row["medians"]:
        return ""
    rounds = row["rounds"][name]
    limited = [r["value"] > r["offered"] * (1 - LOSS) for r in rounds if "offered" in r]
    bound = "≥ " if sum(limited) * 2 > len(rounds) else ""
    return f"{bound}{row['medians'][name]:.3f}"


def interval(ratio):
    if not ratio:
        return ""
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"


def beside(result, earlier):
    """How the ratios compare with those of an earlier run; nothing where there are none to compare: those of a
    single round have no intervals."""
    if 1 in (result.get("rounds"), earlier.get("rounds")):
        return None
    then = dict(ratios(earlier))
    both = [(key, ratio, then[key]) for key, ratio in ratios(result) if key in then]
    if not both:
        return None
    apart = [
        {"case": case, "of": of, "to": to, "now": interval(now), "then": interval(before)}
        for (case, of, to), now, before in both
        if now["low"] > before["high"] or before["low"] > now["high"]
    ]
    of = earlier["machine"]
    return {"commit": of["commit"], "time": of["time"], "ratios": len(both), "apart": apart}


def ratios(result):
    """All ratios of a result, by case and devices."""
    for row in result["rows"]:
        for ratio in row.get("ratios", ()):
            yield (row["case"], ratio["of"], ratio["to"]), ratio


def words(said):
    """What came of `beside`, in lines."""
    when = f"the run of {said['time'][:16]} at {said['commit']}"
    yield f"of {said['ratios']} ratios that {when} has too, the intervals of {len(said['apart'])} are apart"
    for one in said["apart"]:
        yield f"  {one['case']}: {one['of']} / {one['to']}: {one['now']}, then {one['then']}"


def drawing():
    """What draws: nothing in its files that another run over the same data would change."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "margay"
    from matplotlib import pyplot

    return pyplot


def sign(figure, machine):
    """Says below a picture what it is of."""
    where = f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}"
    when = f"{machine['commit']}, {machine['time'][:10]}"
    figure.text(0.01, 0.003, f"{where}, {when}", fontsize=7, color="#666666")


def picture(result, path):
    """Bars of the medians, one panel a unit, each with the least and the most of its rounds."""
    pyplot = drawing()
    units = list(dict.fromkeys(row["unit"] for row in result["rows"]))
    counts = [sum(row["unit"] == unit for row in result["rows"]) for unit in units]
    figure, panels = pyplot.subplots(
        len(units), 1, figsize=(9, 0.75 * sum(counts) + 1.5), height_ratios=counts, squeeze=False
    )
    for panel, unit in zip(panels[:, 0], units):
        rows = [row for row in result["rows"] if row["unit"] == unit]
        bars(panel, rows, unit, devices(result["rows"]))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    ncols = min(len(labels), 5)
    figure.legend(handles, labels, loc="upper center", ncols=ncols, frameon=False)
    sign(figure, result["machine"])
    # Inches for the lines of the legend.
    head = 0.15 + 0.25 * -(-len(labels) // ncols)
    figure.tight_layout(rect=(0, 0.015, 1, 1 - head / figure.get_figheight()))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def bars(panel, rows, unit, order):
    """One bar for each case and device."""
    height = 0.8 / len(order)
    for index, name in enumerate(order):
        places, medians, spans = [], [], [[], []]
        for place, row in enumerate(rows):
            if name in row["medians"]:
                all_ = [value["value"] for value in row["rounds"][name]]
                middle = row["medians"][name]
                places.append(place + (index - (len(order) - 1) / 2) * height)
                medians.append(middle)
                spans[0].append(middle - min(all_))
                spans[1].append(max(all_) - middle)
        panel.barh(places, medians, height * 0.9, label=name, color=COLOURS[name], xerr=spans,
                   error_kw={"elinewidth": 0.8, "ecolor": "#333333"})
    panel.set_yticks(range(len(rows)), [row["case"] for row in rows])
    panel.invert_yaxis()
    panel.set_xlabel(unit)
    panel.spines[["top", "right"]].set_visible(False)
