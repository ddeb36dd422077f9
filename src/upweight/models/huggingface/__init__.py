"""Networks of Hugging Face: `hf` makes models and examples of a transformer, its data set and its collator.

`tasks` has one function per task and `from_trainer` reads a `Trainer`. The other modules hold parts of them: examples
with decoded texts (`dataset_examples`, `decoded_texts`), batches (`collation`), losses per example (`losses`), and what
is refused before long work (`adapter_checks`, `input_checks`).
"""
