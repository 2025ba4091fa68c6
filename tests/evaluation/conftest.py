"""Local tasks."""

import json


def write_task(folder, name, rows, settings):
    """A folder with one task: a YAML file, and its items beside it. Returns the folder."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {name}.jsonl\ntest_split: test"
    (folder / f"{name}.yaml").write_text(f"task: {name}\n{data}\n{settings}\n", "utf-8")
    return folder
