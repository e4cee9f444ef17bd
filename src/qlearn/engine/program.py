"""A pure function of tensors, run eagerly or as one compiled call. The only file that knows about compilers.

Compiled, the function is traced with `make_fx` and made a shared library by Inductor, ahead of time. Libraries are kept
in the user's cache, by the digest of the operations that the function is made of, so the next process starts at once.
"""

import hashlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Mode = Literal["eager", "compiled"]
Function = Callable[..., tuple[Tensor, ...]]

log = logging.getLogger("qlearn")
KEPT_LIBRARIES = 100  # in the cache, those used last; each takes 1.5 MB
VERSION = 3  # of how libraries are made
SMALL = 65_536  # multiplications of a matrix product that is quicker as a loop of its own than as a call of a library
OPTIONS = {
    "aot_inductor.precompile_headers": False,  # it takes longer than the two files of a run that would use them
    "cpp.vec_isa_ok": True,  # the processor is believed; six of its claims would cost a program each
}
_told: set[str] = set()


class Program:
    """A function of tensors that stay and tensors that come, some of the former replaced at every call.

    Args:
        function: `(*kept, *inputs)` to `(*new, *outputs)`, where `new` takes the place of the first of `kept`. Pure.
        kept: tensors that are there at every call, in the same memory.
        changes: how many of them are replaced, in place.
        in_place: the function does so itself, and returns outputs alone: quicker where little of much changes.
        mode: how it runs. What cannot be compiled runs eagerly, with a warning that says why, once.
        name: what it is, for the user.
    """

    def __init__(
        self,
        function: Function,
        kept: Sequence[Tensor],
        *,
        changes: int,
        in_place: bool = False,
        mode: Mode,
        name: str,
    ) -> None:
        self._function, self._kept, self._changes, self._name = function, list(kept), changes, name
        self._in_place = in_place
        self._compile, self._shapes = mode == "compiled", list[torch.Size]()
        self._library: Any = None

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The outputs for these inputs."""
        if self._compile:
            self._compile, self._shapes = False, [x.shape for x in inputs]
            self._library = self._compiled(inputs)
        # The library trusts its caller: other shapes than those that it was made for run eagerly.
        if self._library is not None and [x.shape for x in inputs] == self._shapes:
            outputs: Sequence[Tensor] = self._library.run([*self._kept, *inputs])
            return outputs
        return self._eagerly(self._kept, inputs)

    @property
    def compiled(self) -> bool:
        """Whether it runs as a compiled call, as far as is known."""
        return self._compile or self._library is not None

    def _eagerly(self, kept: Sequence[Tensor], inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        results = self._function(*kept, *inputs)
        if self._in_place:
            return results
        with torch.no_grad():
            for tensor, new in zip(kept, results[: self._changes], strict=False):
                tensor.copy_(new)
        return results[self._changes :]

    def _compiled(self, inputs: Sequence[Tensor]) -> Any:
        """The library, loaded and tried beside the function; None where it cannot be had."""
        problem = why_not()
        if problem is None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    path = self._built(inputs)
                    library = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
                    if self._agrees(library, inputs):
                        return library
                problem = "compiled, it gave other numbers"
                path.unlink(missing_ok=True)
            except Exception as error:  # whatever a tracer and two compilers may raise
                log.debug("compiling %s failed", self._name, exc_info=True)
                problem = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        if problem not in _told:
            _told.add(problem)
            warnings.warn(f"{self._name} runs eagerly, which is slower: {problem}", stacklevel=4)
        return None

    def _built(self, inputs: Sequence[Tensor]) -> Path:
        """The library's file: from the cache, or made now."""
        arguments = [*self._kept, *inputs]
        folder = cache_folder()
        path = folder / f"{digest(self._function, arguments, self._changes)}.so"
        if path.exists():
            os.utime(path)
            return path
        graph = traced(self._function, arguments, 0 if self._in_place else self._changes, in_place=self._in_place)
        log.info("compiling %s; a run like this one starts at once the next time", self._name)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            compiled(graph, arguments, Path(scratch) / "library.so").replace(path)
        prune(folder)
        return path

    def _agrees(self, library: Any, inputs: Sequence[Tensor]) -> bool:
        """Whether both ways give the same, up to rounding."""
        mine, theirs = ([*(t.clone() for t in self._kept[: self._changes]), *self._kept[self._changes :]] for _ in "ab")
        one = [*self._eagerly(mine, inputs), *mine[: self._changes]]
        two = [*library.run([*theirs, *inputs]), *theirs[: self._changes]]
        return all(torch.allclose(a, b, rtol=1e-2, atol=1e-4, equal_nan=True) for a, b in zip(one, two, strict=True))


def why_not() -> str | None:
    """Why nothing can be compiled on this machine; None where it can."""
    compiler = os.environ.get("CXX") or ("clang++" if shutil.which("clang++") and not shutil.which("g++") else "g++")
    return None if shutil.which(compiler) else f"there is no C++ compiler ({compiler}) to be found"


def traced(
    function: Function, arguments: Sequence[Tensor], changes: int, *, in_place: bool = False
) -> torch.fx.GraphModule:
    """The function's graph, which writes its first `changes` results over its first arguments.

    With `in_place` it writes what the function does.

    Raises:
        ValueError: it does more than compute.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    made: torch.fx.GraphModule = make_fx(
        torch.func.functionalize(function, remove="mutations_and_views") if in_place else function,
        decomposition_table={
            torch.ops.aten.mm.default: product,
            torch.ops.aten.bmm.default: product,
            torch.ops.aten.mv.default: lambda a, x: (a * x).sum(-1),
            torch.ops.aten.addmm.default: product_and_sum,
            torch.ops.aten.baddbmm.default: product_and_sum,
        },
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )(*arguments)
    graph = made.graph
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            if torch.Tag.nondeterministic_seeded in node.target.tags:
                raise ValueError(f"the network draws random numbers of its own ({node.target})")
            if node.target._schema.is_mutable and not in_place:
                raise ValueError(f"the network changes its tensors in place ({node.target})")
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    end = next(node for node in graph.nodes if node.op == "output")
    results = list(end.args[0])
    with graph.inserting_before(end):
        for old, new in zip(inputs, results[:changes], strict=False):
            graph.call_function(torch.ops.aten.copy_.default, (old, new))
    end.args = (tuple(results[changes:]),)
    graph.set_codegen(torch.fx.graph.CodeGen())  # plain tuples in, a plain tuple out
    graph.eliminate_dead_code()
    made.recompile()
    return made


def compiled(graph: torch.fx.GraphModule, arguments: Sequence[Tensor], made: Path) -> Path:
    """The graph's library, in the file `made`."""
    options: dict[str, Any] = {**OPTIONS, "aot_inductor.output_path": str(made)}
    if not any(calls_a_library(node) for node in graph.graph.nodes):
        # Where all is loops, what they leave for one another needs no allocation. Inductor cannot always do that: a
        # view of such memory as an output is C++ that is wrong.
        with suppress(Exception):
            torch._inductor.aot_compile(
                graph, tuple(arguments), options={**options, "aot_inductor.allow_stack_allocation": True}
            )
            return made
    torch._inductor.aot_compile(graph, tuple(arguments), options=options)
    return made


def product(a: Tensor, b: Tensor) -> Any:
    """a `[*, M, K]` times b `[*, K, N]`, where it is small, as a loop that Inductor joins with those around it.

    Its inner loop runs over N, so b is laid out by rows; for few rows of a that does not pay.
    """
    if a.shape[-2] * b.shape[-2:].numel() > SMALL:
        return NotImplemented  # make_fx leaves it as it is
    if b.shape[-1] < 8 <= a.shape[-2]:
        return product(b.mT, a.mT).mT
    if a.shape[-2] >= 8:
        a = by_rows(a)
        if b.shape[-1] >= 8:
            b = by_rows(b)
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def product_and_sum(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """c + a b, as `product`."""
    ab = product(a, b) if beta == alpha == 1 else NotImplemented
    return NotImplemented if ab is NotImplemented else c + ab


def by_rows(x: Tensor) -> Tensor:
    """x, in memory one row after another."""
    import torch._inductor.inductor_prims  # registers the operation

    strides = torch._prims_common.make_contiguous_strides_for(x.shape)
    ordered: Tensor = torch.ops.prims.inductor_force_stride_order.default(x, strides)
    return ordered


def calls_a_library(node: torch.fx.Node) -> bool:
    """Whether a node of a graph is a matrix product or a convolution that is no loop of ours."""
    return any(name in str(node.target) for name in ("mm.default", "mv.default", "dot.default", "convolution"))


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations that run inside, as text: what each is given, by where it came from.

    It says what a traced graph would, and takes a call's time, where tracing first imports two compilers.
    """

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lines: list[str] = []
        self._names: dict[int, str] = {}
        self._alive: list[Tensor] = []  # so that no id comes twice
        for argument in arguments:
            self._name(argument)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Dynamo is not to be told of this mode: telling it imports it, which takes a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and write down."""
        given = self.told((args, kwargs or {}))
        results = func(*args, **(kwargs or {}))
        self.lines.append(f"{func} {given} -> {self.told(results, new=True)}")
        return results

    def told(self, value: Any, *, new: bool = False) -> str:
        """A value as text; a tensor from elsewhere, unless it is `new`, by what is in it."""
        if isinstance(value, Tensor):
            known = self._names.get(id(value))
            if known is None or new:
                known = known or self._name(value)
                if not new:
                    content = value.detach().cpu().contiguous().numpy().tobytes()
                    self.lines.append(
                        f"{known} {value.dtype} {tuple(value.shape)} {hashlib.sha256(content).hexdigest()}"
                    )
            return known
        if isinstance(value, (tuple, list)):
            return f"[{', '.join(self.told(item, new=new) for item in value)}]"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{key}: {self.told(item, new=new)}' for key, item in value.items())}}}"
        return repr(value)

    def _name(self, tensor: Tensor) -> str:
        self._alive.append(tensor)
        return self._names.setdefault(id(tensor), f"t{len(self._names)}")


def digest(function: Function, arguments: Sequence[Tensor], changes: int) -> str:
    """What a library depends on: the operations, the arguments' layout, PyTorch, threads and processor.

    The function is run once for it, on copies of what it changes.
    """
    arguments = [*(argument.clone() for argument in arguments[:changes]), *arguments[changes:]]
    with Recorder(arguments) as recorder:
        results = function(*arguments)
    machine = (torch.__version__, torch.get_num_threads(), processor(), os.environ.get("CXX"))
    layout = [(x.dtype, tuple(x.shape), x.stride()) for x in arguments]
    lines = [f"{VERSION} {changes}", *recorder.lines, recorder.told(results), repr(layout), repr(machine)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def processor() -> str:
    """What a library is made for: it uses all that the processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith("flags")), torch.backends.cpu.get_cpu_capability())


def cache_folder() -> Path:
    """Where libraries are kept: a folder that nobody else can write to.

    Raises:
        PermissionError: it is somebody else's.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qlearn" / "compiled"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others, and what is in it is run")
    return folder


def prune(folder: Path) -> None:
    """Leave the libraries that were used last."""
    found = sorted(folder.glob("*.so"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[KEPT_LIBRARIES:]:
        path.unlink(missing_ok=True)
