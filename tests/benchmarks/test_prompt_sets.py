"""Prompt files of every format, and the errors that name file and line."""

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from progrpo.benchmarks.images import list_images
from progrpo.benchmarks.prompt_sets import STYLES, PromptRecord, Vocabulary, load_prompts, validate_record
from progrpo.config import load_config
from progrpo.errors import UserError
from progrpo.files import read_jsonl
from progrpo.jobs.loading import prompts_of
from progrpo.report.tables.layout import load_layout

ROOT = Path(__file__).parents[2]

RECORD = {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}], "prompt": "a red dog"}
WORDS = Vocabulary(("dog", "cat"), ("red", "blue"))


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_text_json_and_records(tmp_path):
    assert load_prompts(write(tmp_path, "a.txt", "a dog\r\n\na cat\n")) == [
        PromptRecord("a dog"),
        PromptRecord("a cat"),
    ]
    assert load_prompts(write(tmp_path, "a.json", ["a dog", "a cat"]), limit=1) == [PromptRecord("a dog")]
    lines = json.dumps(RECORD) + "\n" + json.dumps({"prompt": "a cat"}) + "\n"
    assert load_prompts(write(tmp_path, "a.jsonl", lines)) == [
        PromptRecord("a red dog", RECORD),
        PromptRecord("a cat"),
    ]


def test_repeated_prompts_count_once_when_asked(tmp_path):
    path = write(tmp_path, "a.txt", "a dog\na cat\na dog\n")
    assert len(load_prompts(path)) == 3
    assert [p.prompt for p in load_prompts(path, distinct=True)] == ["a dog", "a cat"]


def write_styles(folder, count):
    for style in ("anime", "concept-art", "paintings", "photo"):
        write(folder, f"{style}.json", [f"{style} {number}" for number in range(count)])
    return folder


def test_a_limit_per_style_takes_the_first_prompts_of_every_style(tmp_path):
    chosen = [p.prompt for p in load_prompts(write_styles(tmp_path, 5), limit_per_style=2)]
    assert chosen == [
        f"{style} {number}" for style in ("anime", "concept-art", "paintings", "photo") for number in (0, 1)
    ]


def test_what_lies_beside_the_four_styles_of_the_hpsv2_benchmark_is_no_style(tmp_path):
    write_styles(tmp_path, 2)
    for name in ("drawbench", "meta"):
        write(tmp_path, f"{name}.json", ["a dog"])
    assert {p.metadata["style"] for p in load_prompts(tmp_path)} == {"anime", "concept-art", "paintings", "photo"}
    for style in STYLES:
        (tmp_path / f"{style}.json").rename(tmp_path / "kept")
        with pytest.raises(UserError, match=rf"of HPSv2's styles, without {style} \({style}.json\)"):
            load_prompts(tmp_path)
        (tmp_path / "kept").rename(tmp_path / f"{style}.json")
    for style in STYLES:
        (tmp_path / f"{style}.json").unlink()  # a folder of other styles, all of which count
    assert {p.metadata["style"] for p in load_prompts(tmp_path)} == {"drawbench", "meta"}


def test_a_limit_per_style_that_cannot_be_met_is_named(tmp_path):
    with pytest.raises(UserError, match="style anime has 5 prompts, fewer than limit_per_style"):
        load_prompts(write_styles(tmp_path, 5), limit_per_style=6)
    with pytest.raises(UserError, match="limit_per_style needs prompts with a style, and 'a dog' has none"):
        load_prompts(write(tmp_path, "a.txt", "a dog\n"), limit_per_style=1)


def test_the_papers_sets_of_the_hpsv2_benchmark_take_as_many_of_each_style(tmp_path):
    config = load_config(ROOT / "config" / "paper.yaml")
    benchmark = write_styles(tmp_path, 800)

    def of_each_style(name):
        section = config.prompt_sets[name].model_copy(update={"path": str(benchmark)})
        return set(Counter(p.metadata["style"] for p in prompts_of(section)).values())

    assert of_each_style("test_diffusion") == {100}
    assert of_each_style("hpsv2") == {800}  # the benchmark whole, so that its score is the published one's
    for analysis in config.analyses.values():
        assert of_each_style(analysis.prompts) == {analysis.prompt_count // 4}


def test_the_papers_test_prompts_are_a_part_of_the_out_of_domain_set_and_the_table_says_so(tmp_path):
    config = load_config(ROOT / "config" / "paper.yaml")
    benchmark = write_styles(tmp_path, 800)
    sections = [
        config.prompt_sets[name].model_copy(update={"path": str(benchmark)}) for name in ("test_diffusion", "hpsv2")
    ]
    test, out_of_domain = ({p.prompt for p in prompts_of(section)} for section in sections)
    assert test < out_of_domain
    caption = load_layout("diffusion_main", ROOT / "paper_tables" / "expected").caption
    assert "At tier paper the in-domain prompts are a part of the HPSv2 benchmark." in caption
    trained = {config.prompt_sets[run.prompts].source for run in config.runs.values()}
    assert config.prompt_sets["hpsv2"].source not in trained


def test_unusual_separators_inside_a_prompt_do_not_split_it(tmp_path):
    assert len(load_prompts(write(tmp_path, "a.txt", "a dog\u2028and a cat\x0cagain\n"))) == 1


def test_the_generated_images_of_this_project_are_a_prompt_file_too(tmp_path):
    line = {"image": "0.png", "prompt": "a red dog", "metadata": RECORD}
    assert load_prompts(write(tmp_path, "prompts.jsonl", json.dumps(line)))[0].metadata == RECORD


def test_metadata_of_another_kind_than_a_record_is_kept(tmp_path):
    lines = [{"prompt": f"{style} {k}", "metadata": {"style": style}} for style in ("anime", "photo") for k in range(2)]
    path = write(tmp_path, "prompts.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    chosen = load_prompts(path, limit_per_style=1)
    assert chosen == [PromptRecord("anime 0", {"style": "anime"}), PromptRecord("photo 0", {"style": "photo"})]
    assert load_prompts(write(tmp_path, "p.json", [{"prompt": "a dog", "metadata": {}}])) == [PromptRecord("a dog", {})]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"tag": "colors"}, "item 1: not a GenEval record"),
        ({"include": []}, "item 1: not a GenEval record"),
        ({"exclude": [{"class": "dog", "count": 1}]}, "item 1: not a GenEval record"),
        ("anime", 'item 1: "metadata" must be an object'),
        (["anime"], 'item 1: "metadata" must be an object'),
        ({"style": ["anime"]}, 'item 1: "metadata" must be an object, and its "style" a string'),
    ],
)
def test_metadata_that_is_half_a_record_or_no_object_is_refused(tmp_path, metadata, message):
    with pytest.raises(UserError, match=message):
        load_prompts(write(tmp_path, "p.json", [{"prompt": "a dog", "metadata": metadata}]), limit_per_style=1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "\n,\nid,prompt\n1,a dog\n"),
        ("p.tsv", "\n \nid\tPrompt\n1\ta dog\n"),
        ("p.txt", "\n\t\nid\tPrompt\n1\ta dog\n"),
    ],
)
def test_blank_lines_before_a_tables_head_do_not_count(tmp_path, name, text):
    assert load_prompts(write(tmp_path, name, text)) == [PromptRecord("a dog")]
    with pytest.raises(UserError, match=f'{name}:3: the table needs one column "prompt"|without a column "prompt"'):
        load_prompts(write(tmp_path, name, text.replace("rompt", "ort")))


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("p.csv", "prompt\na dog\na cat, a dog\n", 3),
        ("p.csv", "id,prompt\n1,a red circle, on the left\n2,a blue square\n", 2),
        ("p.csv", "id,prompt\n1,a circle, red\n2,a square, blue\n", 2),  # all rows alike
        ("p.tsv", "id\tprompt\n1\ta dog\n2\ta red circle\ton the left\n", 3),
    ],
)
def test_a_row_of_more_cells_than_the_head_names_is_refused_as_its_prompt_may_be_cut(tmp_path, name, text, line):
    with pytest.raises(UserError, match=rf"{name}:{line}: \d cells, where the first line names \d"):
        load_prompts(write(tmp_path, name, text))


def test_empty_cells_at_the_end_and_short_rows_are_no_prompts_cut(tmp_path):
    text = "id,prompt,note\n1,a dog,,\n2,a cat\n"
    assert [p.prompt for p in load_prompts(write(tmp_path, "p.csv", text))] == ["a dog", "a cat"]


def test_a_tab_separated_table_is_read_with_quotes_that_quote_and_with_quotes_that_do_not(tmp_path):
    prompts = ['a robot with "fly" on it', '"stop" on a sign', "a sign with ''", "a dog"]
    lines = io.StringIO()
    csv.writer(lines, delimiter="\t").writerows([["id", "prompt"], *enumerate(prompts)])
    assert '"a robot with ""fly"" on it"' in lines.getvalue()
    assert [p.prompt for p in load_prompts(write(tmp_path, "q.tsv", lines.getvalue()))] == prompts
    plain = "".join(f"{k}\t{prompt}\n" for k, prompt in enumerate(prompts))  # as PartiPrompts.tsv
    assert [p.prompt for p in load_prompts(write(tmp_path, "p.tsv", "id\tprompt\n" + plain))] == prompts


@pytest.mark.parametrize("name", ["p.txt", "p.tsv", "p.csv", "p.jsonl.txt"])
@pytest.mark.parametrize(
    "text",
    [
        'prompt,category\n"a red circle, on the left",Abstract\n',
        '"id", "Prompt"\n1,"a red circle, on the left"\n',
        'prompt,"notes, extra"\n"a red circle, on the left",x\n',
        "Prompt \tCategory\na red circle, on the left\tAbstract\n",
    ],
)
def test_a_table_is_known_by_its_head_under_any_ending(tmp_path, name, text):
    assert load_prompts(write(tmp_path, name, text)) == [PromptRecord("a red circle, on the left")]


def test_a_cell_that_never_ends_is_one_line(tmp_path):
    with pytest.raises(UserError, match="p.txt:.*: not a table"):
        load_prompts(write(tmp_path, "p.txt", 'prompt,note\n"' + "a" * 200_000))


@pytest.mark.parametrize(
    "text", ["a prompt, with a comma\n", "prompt\n", "the prompt\ta tab\nnone here\n", "prompt, portrait\na dog\n"]
)
def test_a_text_that_speaks_of_prompts_is_no_table(tmp_path, text):
    assert [record.prompt for record in load_prompts(write(tmp_path, "p.txt", text))] == text.split("\n")[:-1]


def test_a_style_may_stand_beside_its_prompt(tmp_path):
    path = write(tmp_path, "p.jsonl", '{"prompt": "a dog", "style": "anime"}\n')
    assert load_prompts(path, limit_per_style=1) == [PromptRecord("a dog", {"style": "anime"})]
    assert load_prompts(write(tmp_path, "p.jsonl", '{"prompt": "a dog", "style": null}\n')) == [PromptRecord("a dog")]
    with pytest.raises(UserError, match='p.jsonl:1: "metadata" must be an object, and its "style" a string'):
        load_prompts(write(tmp_path, "p.jsonl", '{"prompt": "a dog", "style": 3}\n'))


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.json", "p.jsonl"])
def test_a_pointer_of_git_lfs_is_no_prompt(tmp_path, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    with pytest.raises(UserError, match="a pointer of Git LFS"):
        load_prompts(write(tmp_path, name, pointer))


def test_a_web_page_is_no_list_of_prompts(tmp_path):
    with pytest.raises(UserError, match="a web page, as a server sends one"):
        load_prompts(write(tmp_path, "p.txt", "<!DOCTYPE html>\n<html>\n<body>Not found</body>\n</html>\n"))


def test_lines_of_signs_that_nobody_sees_are_no_prompts(tmp_path):
    records = load_prompts(write(tmp_path, "p.txt", "a dog\n\u200b\n\ufeffa cat\n\x1a"))
    assert [record.prompt for record in records] == ["a dog", "a cat"]


def test_a_folder_that_is_not_fetched_yet_is_missing_and_of_no_unknown_kind(tmp_path):
    with pytest.raises(UserError, match="benchmark: no such file or folder"):
        load_prompts(tmp_path / "benchmark")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"include": [{"class": "dgo", "count": 1}]}, "p.jsonl:2: unknown class 'dgo'; did you mean 'dog'"),
        (
            {"include": [{"class": "dog", "count": 1, "color": "mauve"}]},
            "p.jsonl:2: unknown color 'mauve'; known: red, blue",
        ),
        ({"include": [{"class": "dog", "count": 0}]}, "p.jsonl:2: the \"count\" of 'dog'"),
        ({"include": [{"class": "dog"}]}, "p.jsonl:2: the \"count\" of 'dog'"),
        ({"include": [{"count": 1}]}, 'p.jsonl:2: a clause has no "class"'),
        ({"include": []}, 'p.jsonl:2: not a GenEval record: "include"'),
        ({"tag": 3}, "p.jsonl:2: not a GenEval record"),
        ({"prompt": " "}, 'p.jsonl:2: the record has no "prompt"'),
        ({"exclude": [{"class": "cow", "count": 1}]}, "p.jsonl:2: unknown class 'cow'"),
        (
            {"include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["beside", 0]}]},
            'p.jsonl:2: "position" must be',
        ),
        (
            {"include": [{"class": "dog", "count": 1, "position": ["above", 0]}]},
            'p.jsonl:2: "position" refers to clause 0',
        ),
    ],
)
def test_a_bad_record_is_named_with_its_line(tmp_path, change, message):
    path = write(tmp_path, "p.jsonl", json.dumps(RECORD) + "\n" + json.dumps({**RECORD, **change}) + "\n")

    def read() -> None:
        load_prompts(path)
        for number, record in read_jsonl(path):
            validate_record(record, f"{path}:{number}", WORDS)

    with pytest.raises(UserError, match=re.escape(message)):
        read()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"prompt": "a dog"}\n{"pro', "p.jsonl:2: not a JSON object"),
        ("p.json", '{"a":\n1}', "expected a JSON list"),
        ("p.json", ["a dog", 3], "item 2 is not a prompt"),
        ("p.txt", "\n\n", "holds no prompt"),
        ("p.csv", "a dog", 'p.csv:1: the table needs one column "prompt"; it has a dog'),
        ("p.csv", 'prompt,note\na dog,1\n"a cat,2\n', "p.csv:3: not a table"),
        ("p.doc", "a dog", "unknown kind of prompt file '.doc'"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        load_prompts(write(tmp_path, name, content))


@pytest.mark.parametrize(("name", "lines"), [("p.txt", "a dog\n"), ("p.jsonl", '{"prompt": "a dog"}\n')])
def test_byte_order_marks_of_joined_files_are_dropped(tmp_path, name, lines):
    path = write(tmp_path, name, f"\ufeff{lines}\ufeff{lines}")
    assert [record.prompt for record in load_prompts(path)] == ["a dog", "a dog"]


def test_missing_and_binary_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_prompts(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_prompts(tmp_path / "b.txt")


def test_records_that_are_no_objects_are_refused():
    with pytest.raises(UserError, match="^here: not a GenEval record"):
        validate_record(["dog"], "here")


def test_folders_without_images_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        list_images(tmp_path / "none")
    with pytest.raises(UserError, match="no images"):
        list_images(tmp_path)
    (tmp_path / "00000").mkdir()
    (tmp_path / "00000" / "metadata.jsonl").write_text('{"tag": "x"}')
    with pytest.raises(UserError, match="metadata.jsonl:1: not a GenEval record"):
        list_images(tmp_path)


def test_compbench_names_give_prompt_and_order(tmp_path):
    for name in ("a dog_000002.png", "a cat_000010.png", "a red_hat_000001.png", "notes.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="1 of 4 images are not named"):
        list_images(tmp_path)
    assert [item.prompt for item in list_images(tmp_path, allow_partial=True)] == ["a red_hat", "a dog", "a cat"]
