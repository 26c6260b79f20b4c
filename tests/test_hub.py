"""The hub: the model card, publishing a checkpoint, and using one by its name. The hub is a fake one on 127.0.0.1."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
import tiny
import torch
from fake_hub import FakeHub
from huggingface_hub import ModelCard
from run_files import checkpoint

import predict
import run
from models.hub import FILES, find_checkpoint
from models.pretrained_bert import load_bert
from models.self_mm import SelfMM
from trains.runs.checkpoint import add_test_scores, load_checkpoint, model_card
from utils.errors import UserError

NAME = "someone/self-mm"
MOSI = "5da0b8440fc5a7c3a457859af27458beb993e088"
EXTRACTORS = {"text": {"name": "bert"}, "audio": {"name": "librosa"}, "vision": {"name": "mediapipe"}}
LABELS = pd.DataFrame({"id": ["clip1"], "fusion": [0.5]})
SCORES = {"MAE": 0.71234, "Corr": float("nan"), "Non0_acc_2": 0.85, "Non0_F1_score": 0.84, "Loss": 0.7, "text_MAE": 0.9}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FakeHub:
    """The hub that the library uses, with an empty cache."""
    fake, constants = FakeHub(), huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_none")  # no token of this machine goes into a test
    yield fake
    fake.shutdown()
    fake.server_close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a checkpoint, and the features that it was trained on."""
    from conftest import Workplace

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert Workplace(folder).run() == 0
        add_test_scores(checkpoint(), SCORES)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def card_of(**facts: object) -> ModelCard:
    config = {"trained_on": {"model": "self_mm", "dataset": "mosi", "seed": 1} | facts}
    return ModelCard(model_card(config | {"hyper_parameters": {"tasks": "MTAV", "KeyEval": "Loss"}}, SCORES))


def test_the_card_names_licence_language_encoder_data_and_scores():
    card = card_of(features_sha1=MOSI, base_model="google-bert/bert-base-uncased")
    assert (card.data.license, card.data.language, card.data.library_name) == ("other", "en", "self-mm")
    assert card.data.base_model == "google-bert/bert-base-uncased" and card.data.datasets == ["cmu-mosi"]
    results = {result.metric_name: (result.metric_type, result.metric_value) for result in card.data.eval_results}
    # None that is undefined, and none of a single modality.
    assert results == {"MAE": ("mae", 0.7123), "Non0_acc_2": ("accuracy", 0.85), "Non0_F1_score": ("f1", 0.84)}
    assert {(result.dataset_name, result.dataset_split) for result in card.data.eval_results} == {("CMU-MOSI", "test")}
    assert "| MAE | 0.7123 |" in card.text and "| text_MAE | 0.9000 |" in card.text and "from -3 " in card.text
    assert MOSI in card.text and "clip.mp4" not in card.text and "licences of their own" in card.text


def test_the_card_of_other_features_claims_no_public_dataset():
    card = card_of(features_sha1="f" * 40, extractors=EXTRACTORS)
    assert card.data.datasets is None and card.data.base_model is None
    assert {result.dataset_name for result in card.data.eval_results} == {"feature file ffffffffff"}
    assert "MOSI" not in card.text and 'clip.mp4 --text "its transcript"\n' in card.text


def test_a_card_before_the_test_has_no_scores():
    card = ModelCard(model_card({"trained_on": {}, "hyper_parameters": {"tasks": "M"}}))
    assert card.data.eval_results is None and card.data.model_name is None
    assert "before the training ended" in card.text and "| MAE" not in card.text


def test_no_text_of_a_feature_file_can_change_the_card():
    hostile = '\n---\nlicense: gpl\n---\n```\n<script>"{{ 7 * 7 }}" | x |'
    extractors = {**EXTRACTORS, "audio": {"name": hostile, "settings": {hostile: hostile}}}
    card = card_of(extractors=extractors)
    assert card.data.license == "other" and "49" not in card.text
    block = card.text.split("versions and settings:")[1].split("## Training")[0].strip("\n").split("\n")
    assert all(line.startswith("    ") for line in block) and json.loads("\n".join(block)) == extractors
    assert "<script>" not in card.text


def test_a_run_writes_the_card_without_local_paths(trained):
    assert set(content(checkpoint(models=trained / "results/models"))) <= set(FILES)
    for path, data in content(checkpoint(models=trained / "results/models")).items():
        assert str(trained).encode() not in data, path
    card = ModelCard((checkpoint(models=trained / "results/models") / "README.md").read_text())
    assert card.data.license == "other" and "| MAE | 0.7123 |" in card.text and "| seed | 1 |" in card.text


def test_scores_of_a_checkpoint_whose_replacement_was_interrupted_are_added(trained, tmp_path):
    shutil.copytree(checkpoint(models=trained / "results/models"), tmp_path / "former-one")
    add_test_scores(tmp_path / "one", {"MAE": 0.5})
    assert "| MAE | 0.5000 |" in (tmp_path / "former-one" / "README.md").read_text()


def test_an_encoder_of_the_hub_is_recorded_and_a_folder_is_not(trained, tmp_path, monkeypatch):
    from trains.runs.checkpoint import read_metadata, save_checkpoint

    model = load_checkpoint(checkpoint(models=trained / "results/models"), SelfMM)
    monkeypatch.chdir(tmp_path)
    Path("my/bert").mkdir(parents=True)
    for source, expected in (("owner/bert", "owner/bert"), ("my/bert", None), (str(tmp_path / "bert"), None)):
        model.text_encoder.bert.config.name_or_path = source
        save_checkpoint(model, tmp_path / "one", {}, None, LABELS)
        assert read_metadata(tmp_path / "one")["base_model"] == expected
        assert str(tmp_path) not in (tmp_path / "one" / "README.md").read_text()


def test_a_published_model_is_complete_and_gives_the_same_scores(hub, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    flags = ["--dataPath", "data/unaligned.pkl", "--gpu_ids", "-1"]
    folder = checkpoint()
    assert run.main(["--test_only", str(folder), *flags]) == 0
    expected = capsys.readouterr().out
    SelfMM.from_pretrained(folder).push_to_hub(NAME)
    assert hub.repositories[NAME] == content(trained / folder)

    hub.repositories[NAME] |= {"setup.py": b"1", "pytorch_model.bin": b"1", "tokenizer/x/tokenizer.json": b"1"}
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "data", "data")
    capsys.readouterr()
    assert run.main(["--test_only", NAME, *flags]) == 0
    assert capsys.readouterr().out.replace(NAME, str(folder)) == expected
    assert set(hub.downloads) == set(content(checkpoint(models=trained / "results/models"))) and len(
        hub.downloads
    ) == len(set(hub.downloads))

    hub.requests.clear()
    for name in (NAME, f"{NAME}@{hub.commit(NAME)}"):
        assert predict.main(["--checkpoint", name, "--features", "data/unaligned.pkl", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == tiny.SIZES["test"]
    SelfMM.from_pretrained(find_checkpoint(NAME, "--checkpoint")).save_pretrained("copy")
    assert content(Path("copy")) == content(checkpoint(models=trained / "results/models"))
    assert not hub.requests  # the cache sufficed


def test_from_pretrained_by_name_fetches_all_that_publishing_needs(hub, trained, tmp_path):
    hub.repositories[NAME] = content(checkpoint(models=trained / "results/models"))
    model = SelfMM.from_pretrained(NAME)
    model.save_pretrained(tmp_path / "copy")
    assert content(tmp_path / "copy") == content(checkpoint(models=trained / "results/models"))


def test_a_model_that_was_trained_further_keeps_no_scores_of_the_old_one(trained, tmp_path):
    model = SelfMM.from_pretrained(checkpoint(models=trained / "results/models"))
    with torch.no_grad():
        model.heads["fusion"].layer_3.bias += 1
    model.save_pretrained(tmp_path / "new")
    assert set(content(tmp_path / "new")) == {
        name for name in content(checkpoint(models=trained / "results/models")) if name != "labels.csv"
    }
    assert "trained_on" not in json.loads((tmp_path / "new" / "config.json").read_text())
    assert "0.7123" not in (tmp_path / "new" / "README.md").read_text()
    loaded = load_checkpoint(tmp_path / "new", SelfMM)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_model_is_saved_over_the_folder_that_it_was_loaded_from(trained, tmp_path):
    shutil.copytree(checkpoint(models=trained / "results/models"), tmp_path / "one")
    SelfMM.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "one")
    assert content(tmp_path / "one") == content(checkpoint(models=trained / "results/models"))


def test_an_interrupted_download_is_completed(hub, trained, monkeypatch):
    hub.repositories[NAME] = content(checkpoint(models=trained / "results/models"))
    folder = find_checkpoint(NAME, "--checkpoint")
    (folder / "model.safetensors").unlink()
    assert find_checkpoint(NAME, "--checkpoint") == folder and (folder / "model.safetensors").exists()


def test_a_folder_is_preferred_to_the_hub(hub, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint(models=trained / "results/models"), NAME)
    assert find_checkpoint(NAME, "--checkpoint") == Path(NAME) and not hub.downloads


@pytest.mark.parametrize(
    "what", ["unknown", "gated", "no such revision", "not a model of ours", "no connection", "offline"]
)
def test_a_model_that_cannot_be_downloaded_is_one_clear_line(hub, what, workplace, monkeypatch, capsys):
    name, reason = NAME, "404"
    if what in ("gated", "no such revision", "not a model of ours"):
        hub.repositories[NAME] = {"config.json": b"{}"}
    if what == "gated":
        hub.gated, reason = {NAME}, "gated"
    elif what == "no such revision":
        name, reason = f"{NAME}@v2", "Revision Not Found"
    elif what == "not a model of ours":
        reason = "lacks config.json or model.safetensors"
    elif what == "no connection":
        hub.shutdown()
        hub.server_close()
        reason = "ConnectError"
    elif what == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        reason = "HF_HUB_OFFLINE"
    for program, flag in ((run, "--test_only"), (predict, "--checkpoint")):
        features = [] if program is run else ["--features", str(workplace.features)]
        assert program.main([flag, name, *features, "--gpu_ids", "-1"]) == 2
        captured = capsys.readouterr()
        *bars, error = captured.err.splitlines()
        assert error.startswith(f"error: {flag} {name}: ") and reason in error, error
        assert "HF_ENDPOINT=https://hf-mirror.com" in error and "hf auth login" in error
        assert captured.out == "" and all("Fetching" in bar for bar in bars if bar)  # the library's progress


@pytest.mark.parametrize(
    "name", ["nowhere", "./some/one", "/some/one", "~/some", "a/b/c", "-a/b", "a b/c", "some/", "@main"]
)
def test_a_path_that_is_no_hub_name_is_not_looked_for_on_the_hub(hub, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("models.hub.snapshot_download", pytest.fail)
    with pytest.raises(UserError, match=f"^--test_only {re.escape(name)}: not found; expected"):
        find_checkpoint(name, "--test_only")


def test_the_line_about_an_encoder_that_cannot_be_downloaded_names_the_mirror():
    with pytest.raises(
        UserError, match="--bert owner/none: .*pretrained_model.* set HF_ENDPOINT=https://hf-mirror.com"
    ):
        load_bert("owner/none")  # offline, as all tests


def test_an_empty_test_only_trains_nothing(workplace, capsys):
    assert run.main(["--test_only", "", "--dataPath", str(workplace.features)]) == 2
    assert "config.json: cannot be read" in capsys.readouterr().err and not workplace.written()
