"""The character tokenizer of the reference models."""

from __future__ import annotations

from typing import Any

from prunelib.reference.corpus import BOS, EOS, PAD, UNK, vocabulary


def build_tokenizer() -> Any:
    """A fast tokenizer with one token per character, ``<s>`` before every text.

    BPE without merges is the one model of the ``tokenizers`` library that both vLLM and
    transformers load and that splits text into characters by itself.
    """
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    vocab = vocabulary()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=UNK))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocab[BOS])]
    )
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
