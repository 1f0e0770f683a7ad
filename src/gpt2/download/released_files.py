"""The files of the released models: names, and the sizes and hashes that are known."""

import dataclasses

INDEX, META, SHARD = "model.ckpt.index", "model.ckpt.meta", ".data-00000-of-00001"
DATA = "model.ckpt" + SHARD
# The index comes before the data, whose check needs it.
FILES = ("checkpoint", "encoder.json", "hparams.json", INDEX, META, "vocab.bpe", DATA)


@dataclasses.dataclass(frozen=True)
class ExpectedFile:
    """What is known of a complete file."""

    size: int | None = None  # bytes
    sha256: str | None = None  # in hex
    least: int = 1  # bytes, where the size is not known

    def size_error(self, size: int) -> str:
        """What is wrong with a file of `size` bytes, or "" if nothing is."""
        if size >= self.least and self.size in (None, size):
            return ""
        return f"has {size} bytes instead of {self.size or f'at least {self.least}'}"


SUMS_OF_124M = f"""
77 dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb checkpoint
1042301 196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783 encoder.json
90 d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318 hparams.json
497759232 2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118 {DATA}
5215 71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687 {INDEX}
471155 4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b {META}
456318 1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5 vocab.bpe
"""
FILES_OF_124M = {
    name: ExpectedFile(int(size), sha256)
    for size, sha256, name in map(str.split, SUMS_OF_124M.splitlines()[1:])
}
RELEASED_VOCABULARY = {name: FILES_OF_124M[name] for name in ("encoder.json", "vocab.bpe")}
# fmt: off
RELEASED = {
    "124M": FILES_OF_124M,
    "355M": RELEASED_VOCABULARY | {
        "checkpoint": ExpectedFile(77), "hparams.json": ExpectedFile(91),
        INDEX: ExpectedFile(10399), META: ExpectedFile(926519), DATA: ExpectedFile(1419292672),
    },
    # Computed, not observed: 4 bytes for each parameter, which is the exact size of the smaller
    # two. The larger two must not have less.
    "774M": RELEASED_VOCABULARY | {DATA: ExpectedFile(least=3096120320)},
    "1558M": RELEASED_VOCABULARY | {DATA: ExpectedFile(least=6230444800)},
}
# fmt: on
# A server may have a model under its name, under the name it was first released as, or under both.
BOTH_NAMES = [("124M", "117M"), ("355M", "345M"), ("774M", "762M"), ("1558M", "1542M")]
MODELS = {name: pair for pair in BOTH_NAMES for name in reversed(pair)}


def remote_names(model: str) -> tuple[str, ...]:
    """The names under which a server may have a model, the most likely first."""
    return MODELS.get(model, (model,))


def released_file(model: str, name: str) -> ExpectedFile:
    """What is known of a model's file before any server is asked."""
    return RELEASED.get(remote_names(model)[0], {}).get(name, ExpectedFile())
