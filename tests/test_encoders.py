"""The encoders against the padded or packed implementations of transformers and torch."""

import numpy as np
import pytest
import tiny
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

from models.batch import Frames, PackedText
from models.bert_text_encoder import BertTextEncoder
from models.hub import from_disk_or_hub
from models.lstm_encoder import LSTMEncoder
from models.pretrained_bert import fingerprint, load_bert, load_tokenizer
from utils.errors import UserError

sentence_lengths = st.lists(st.integers(1, 12), min_size=1, max_size=9)


def longest_first(lengths: torch.Tensor) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """The order by falling length, the lengths in that order, and each one's position in it."""
    order = lengths.argsort(descending=True)
    return order, lengths[order].numpy(), order.argsort().numpy()


def pack_text(ids: torch.Tensor, segments: torch.Tensor, lengths: torch.Tensor, by_length: bool) -> PackedText:
    order, falling, inverse_order = longest_first(lengths)
    tokens = [torch.stack([ids[row, : lengths[row]], segments[row, : lengths[row]]], dim=1) for row in order]
    return PackedText.pack(torch.cat(tokens), falling, inverse_order, by_length)


def pack_frames(values: torch.Tensor, lengths: torch.Tensor, stretches: int) -> Frames:
    order, falling, inverse_order = longest_first(lengths)
    return Frames.pack(torch.cat([values[row, : lengths[row]] for row in order]), falling, inverse_order, stretches)


@settings(max_examples=25, deadline=None)
@given(sentence_lengths, st.integers(1, 3), st.booleans(), st.sampled_from([0.0, 1e-6]), st.integers(0, 10**6))
def test_packed_bert_matches_padded_bert_in_value_and_gradient(
    lengths: list[int], layers: int, by_length: bool, nearly_0: float, seed: int
):
    """With a probability above 0, training uses our own attention; at 1e-6 it drops nothing."""
    bert = tiny.make_bert(
        num_hidden_layers=layers, hidden_dropout_prob=0.0, attention_probs_dropout_prob=nearly_0
    ).train()
    lengths = torch.tensor(lengths)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), int(lengths.max()))
    ids = torch.randint(5, len(tiny.VOCABULARY), shape, generator=generator)
    segments = torch.randint(0, 2, shape, generator=generator)
    direction = torch.randn(len(lengths), 16, generator=generator)

    ours = BertTextEncoder(bert)(pack_text(ids, segments, lengths, by_length))
    gradients = torch.autograd.grad((ours * direction).sum(), list(bert.parameters()))
    mask = (torch.arange(shape[1]) < lengths[:, None]).long()
    theirs = bert(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state[:, 0]
    expected = torch.autograd.grad((theirs * direction).sum(), list(bert.parameters()))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=2e-5, rtol=1e-4)


def test_dropout_is_random_in_training_only():
    encoder = BertTextEncoder(tiny.make_bert())
    ids, segments = torch.randint(5, 20, (3, 6)), torch.zeros(3, 6, dtype=torch.long)
    text = pack_text(ids, segments, torch.tensor([6, 2, 4]), by_length=True)
    encoder.train()
    assert not torch.equal(encoder(text), encoder(text))
    encoder.eval()
    assert torch.equal(encoder(text), encoder(text))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 2), st.integers(1, 9), st.integers(0, 10**6))
def test_lstm_matches_the_packed_lstm_of_torch_in_value_and_gradient(
    lengths: list[int], layers: int, stretches: int, seed: int
):
    torch.manual_seed(seed)
    encoder = LSTMEncoder(width=3, hidden_size=4, out_size=5, layers=layers, dropout=0.0)
    lengths = torch.tensor(lengths)
    values = torch.randn(len(lengths), int(lengths.max()), 3)
    values[torch.arange(values.shape[1]) >= lengths[:, None]] = 0
    direction = torch.randn(len(lengths), 5)

    ours = encoder(pack_frames(values, lengths, stretches))
    gradients = torch.autograd.grad((ours * direction).sum(), list(encoder.parameters()))
    _, (last, _) = encoder.lstm(pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False))
    theirs = encoder.linear(last[-1])
    expected = torch.autograd.grad((theirs * direction).sum(), list(encoder.parameters()))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_both_forms_of_weights_load_the_same(tmp_path, form):
    tiny.write_bert(tmp_path, seed=4)
    expected = tiny.make_bert(seed=4)
    if form == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(expected.state_dict(), tmp_path / form)
    loaded = load_bert(str(tmp_path))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert loaded.pooler is None


def test_weights_saved_from_a_pretraining_model_load_too(tmp_path):
    """The hub's bert-base-uncased holds its encoder under `bert.`, next to pretraining heads."""
    tiny.write_bert(tmp_path, seed=4)
    (tmp_path / "model.safetensors").unlink()
    expected = tiny.make_bert(seed=4).state_dict()
    weights = {f"bert.{name}": tensor for name, tensor in expected.items()}
    torch.save(weights | {"cls.predictions.bias": torch.zeros(5)}, tmp_path / "pytorch_model.bin")
    loaded = load_bert(str(tmp_path)).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_a_folder_without_vocabulary_has_no_tokenizer(tmp_path):
    tiny.write_bert(tmp_path)
    assert load_tokenizer(str(tmp_path))("word3 word0")["input_ids"] == [tiny.CLS, 8, 5, tiny.SEP]
    (tmp_path / "vocab.txt").unlink()
    assert load_tokenizer(str(tmp_path)) is None


def test_an_earlier_download_needs_no_hub():
    calls = []
    assert from_disk_or_hub("owner/name", lambda **where: calls.append(where) or "loaded", "--bert", "") == "loaded"
    assert calls == [{"local_files_only": True}]


def test_a_model_that_is_not_on_the_disk_is_downloaded(monkeypatch, capsys):
    calls = []

    def not_there(*_, **where: bool):
        calls.append(where)
        raise OSError("not there")

    monkeypatch.setattr(transformers.PretrainedConfig, "get_config_dict", not_there)
    with pytest.raises(UserError, match="--bert owner/name: .*not there"):
        load_bert("owner/name")
    assert calls == [{"local_files_only": True}, {}]
    assert capsys.readouterr().out == "owner/name is not on this disk: downloading it\n"


def test_the_fingerprint_distinguishes_weights():
    assert fingerprint(tiny.make_bert(1)) == fingerprint(tiny.make_bert(1)) != fingerprint(tiny.make_bert(2))
