"""Tokenizers in the styles of the model families that Moebius serves, trained on given texts."""

import json

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
LETTERS = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
SMALL = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
LLAMA4 = (rf"[^\r\n\p{{L}}\p{{N}}]?[{LETTERS}]*[{SMALL}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
          rf"|[^\r\n\p{{L}}\p{{N}}]?[{LETTERS}]+[{SMALL}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
          r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
KIMI = (r"[\p{Han}]+"
        rf"|[^\r\n\p{{L}}\p{{N}}]?[{LETTERS}&&[^\p{{Han}}]]*[{SMALL}&&[^\p{{Han}}]]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        rf"|[^\r\n\p{{L}}\p{{N}}]?[{LETTERS}&&[^\p{{Han}}]]+[{SMALL}&&[^\p{{Han}}]]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK_V3 = [
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]
DEEPSEEK_LLM = [
    "[\r\n]",
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    "\\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7a3]+",
]


def _split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def _bytes(add_prefix_space=False, use_regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def _special(content, **flags):
    return AddedToken(content, special=True, normalized=False, **flags)


def _byte_level(texts, vocab_size, pre, added, normalizer=None, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    tokenizer.add_special_tokens([t for t in added if t.special])
    tokenizer.add_tokens([t for t in added if not t.special])
    return tokenizer


def gpt2(texts, size):
    added = [_special("<|endoftext|>"), AddedToken("<|pad|>", rstrip=True)]
    return _byte_level(texts, size, _bytes(use_regex=True), added)


def roberta(texts, size):
    """Byte level with a prefix space, and a mask that takes the spaces around it."""
    added = [_special("<mask>", lstrip=True), _special("<m>", lstrip=True, rstrip=True),
             AddedToken("word", single_word=True), AddedToken("wordy")]
    return _byte_level(texts, size, _bytes(add_prefix_space=True, use_regex=True), added)


def qwen(texts, size):
    added = [_special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    added += [AddedToken(t, normalized=False) for t in ("<think>", "</think>", "<tool_call>")]
    pre = pre_tokenizers.Sequence([_split(QWEN), _bytes()])
    return _byte_level(texts, size, pre, added, normalizers.NFC())


def llama3(texts, size):
    added = [_special(t) for t in ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")]
    pre = pre_tokenizers.Sequence([_split(LLAMA3), _bytes()])
    tokenizer = _byte_level(texts, size, pre, added, ignore_merges=True)
    bos = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
                                      special_tokens=[(bos, tokenizer.token_to_id(bos))])])
    return tokenizer


def llama4(texts, size):
    added = [_special(t) for t in ("<|begin_of_text|>", "<|eot|>", "<|header_start|>")]
    pre = pre_tokenizers.Sequence([_split(LLAMA4), _bytes()])
    return _byte_level(texts, size, pre, added)


def kimi(texts, size):
    added = [_special(t) for t in ("[BOS]", "[EOS]", "<|im_end|>")]
    return _byte_level(texts, size, pre_tokenizers.Sequence([_split(KIMI), _bytes()]), added)


def deepseek_v3(texts, size):
    added = [_special(t) for t in ("<\uff5cbegin\u2581of\u2581sentence\uff5c>",
                                   "<\uff5cend\u2581of\u2581sentence\uff5c>")]
    added += [AddedToken("<\uff5cUser\uff5c>", normalized=False),
              AddedToken("<\uff5cAssistant\uff5c>", normalized=True)]
    pre = pre_tokenizers.Sequence([_split(p) for p in DEEPSEEK_V3] + [_bytes()])
    return _byte_level(texts, size, pre, added, normalizers.Sequence([]))


def deepseek_llm(texts, size):
    added = [_special("<\uff5cend\u2581of\u2581sentence\uff5c>")]
    pre = pre_tokenizers.Sequence([_split(p) for p in DEEPSEEK_LLM] +
                                  [pre_tokenizers.Digits(individual_digits=True), _bytes()])
    return _byte_level(texts, size, pre, added)


def _metaspace_bpe(texts, size, byte_fallback=True, fuse_unk=True):
    """A model trained on words that begin with U+2581, as SentencePiece does it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse_unk,
                                     byte_fallback=byte_fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokens = ["<unk>", "<s>", "</s>"]
    if byte_fallback:
        tokens += [f"<0x{b:02X}>" for b in range(256)]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, special_tokens=tokens, limit_alphabet=400, show_progress=False))
    # The byte tokens are plain entries of the vocabulary in the real files.
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["id"] < 3]
    return Tokenizer.from_str(json.dumps(data))


def _with_bos(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tokenizer


def llama2(texts, size):
    tokenizer = _metaspace_bpe(texts, size)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"),
                                                 normalizers.Replace(" ", "\u2581")])
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                           decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_tokens([AddedToken("[INST]", normalized=True), AddedToken("<pad>")])
    return _with_bos(tokenizer)


def mistral(texts, size):
    tokenizer = _metaspace_bpe(texts, size, fuse_unk=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                           decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([_special("[INST]"), _special("[/INST]", rstrip=True)])
    return _with_bos(tokenizer)


def metaspace(texts, size):
    """Words cut apart, no byte fallback: unknown characters are fused into <unk>."""
    tokenizer = _metaspace_bpe(texts, size, byte_fallback=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace()
    return _with_bos(tokenizer)


def odd(texts, size):
    """Normalisers and pre-tokenisers that the families above leave out."""
    tokenizer = _metaspace_bpe(texts, size, byte_fallback=False, fuse_unk=False)
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFKC(), normalizers.Strip(True, True), normalizers.Lowercase(),
        normalizers.Replace(Regex(r"\s{2,}"), " "), normalizers.Replace("``", '"')])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=False),
        _split(r"[,;]", "merged_with_previous"), _split(r"[({]", "merged_with_next"),
        _split(r"[!?]", "contiguous"), _split(r"\w+|[^\w\s]+|\s+", "removed", True),
        pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.add_tokens([AddedToken("Big Word"), AddedToken("\u00e9t\u00e9", single_word=True),
                          AddedToken("  gap  ", normalized=False), AddedToken("\u2581s", lstrip=True)])
    return tokenizer


STYLES = {f.__name__: f for f in (gpt2, roberta, qwen, llama3, llama4, kimi, deepseek_v3,
                                  deepseek_llm, llama2, mistral, metaspace, odd)}


def _random_normalizer(rng):
    n = normalizers
    return rng.choice([
        n.NFC(), n.NFD(), n.Lowercase(), n.Strip(rng.random() < 0.5, rng.random() < 0.5),
        n.Prepend(rng.choice("_\u2581 ")), n.Replace(" ", "\u2581"), n.Replace("a", ""),
        n.Replace(Regex(r"\s+"), " "), n.Replace(Regex("x*"), "-"), n.Replace("ab", "ba")])


def _random_pre_tokenizer(rng):
    p = pre_tokenizers
    behavior = rng.choice(["isolated", "removed", "merged_with_previous", "merged_with_next",
                           "contiguous"])
    pattern = rng.choice([Regex(r) for r in (
        r"\p{N}{1,3}", r"\s", r"\s+$", "^.", r"[a-c]+|\w", QWEN, r" ?\p{L}+|\d", r"(?=b)", r"(?<=a)b",
        r"x*", r"a{2}?b", r"[^\S\n]+", r"\h+", r"(ab){1,2}+")] + ["a", " ", "\u2581", "\n"])
    return rng.choice([
        p.Split(pattern, behavior, rng.random() < 0.4), p.Split(pattern, behavior, False),
        p.Digits(rng.random() < 0.5), p.Whitespace(), p.WhitespaceSplit(),
        p.Metaspace(prepend_scheme=rng.choice(["always", "first", "never"]),
                    split=rng.random() < 0.5),
        p.ByteLevel(add_prefix_space=rng.random() < 0.5, use_regex=rng.random() < 0.5)])


def _random_decoder(rng):
    d = decoders
    strip = d.Strip(rng.choice(" ab"), rng.randint(0, 2), 0)
    return rng.choice([
        None, d.ByteLevel(), d.Metaspace(prepend_scheme=rng.choice(["always", "never"])),
        d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse(), strip]),
        d.Sequence([d.ByteFallback(), d.ByteLevel()]),
        d.Sequence([d.Replace(Regex("a+b"), "!"), strip, d.ByteFallback(), d.Metaspace()]),
        d.Sequence([d.Fuse(), d.Replace("\u2581", " "), strip])])


def random_tokenizer(rng, texts):
    """Parts and added tokens at random: what no family does, the format allows."""
    fallback = rng.random() < 0.5
    tokenizer = Tokenizer(models.BPE(
        unk_token="<unk>" if rng.random() < 0.7 else None, fuse_unk=rng.random() < 0.5,
        byte_fallback=fallback, ignore_merges=rng.random() < 0.3))
    steps = [_random_pre_tokenizer(rng) for _ in range(rng.randint(0, 3))]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps or [pre_tokenizers.Metaspace()])
    vocab = ["<unk>"] if tokenizer.model.unk_token else []
    if fallback:
        vocab += [f"<0x{b:02X}>" for b in range(256) if rng.random() < 0.98]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=len(vocab) + rng.randint(150, 600), limit_alphabet=rng.choice([60, 200]),
        special_tokens=vocab, show_progress=False))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = []
    if not steps:
        data["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(data))
    if rng.random() < 0.6:
        tokenizer.normalizer = normalizers.Sequence(
            [_random_normalizer(rng) for _ in range(rng.randint(1, 3))])
    decoder = _random_decoder(rng)
    if decoder is not None:
        tokenizer.decoder = decoder
    contents = {"".join(rng.choices(["a", "b", "ab", " ", "<", ">", "\u2581", "\u00e9", "1", "\n"],
                                    k=rng.randint(1, 4))) for _ in range(rng.randint(0, 8))}
    flag = lambda: rng.random() < 0.3
    for content in sorted(contents):
        token = AddedToken(content, single_word=flag(), lstrip=flag(), rstrip=flag(),
                           normalized=flag(), special=flag())
        try:
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        except BaseException:  # two tokens with one normal form: not a tokenizer that can be saved
            return random_tokenizer(rng, texts)
    try:
        tokenizer.encode("\u2764 ab")
    except BaseException:  # a token with an empty normal form makes the library panic everywhere
        return random_tokenizer(rng, texts)
    return tokenizer
