"""What can be known about one machine: frozen plain data, JSON both ways.

Three things are told apart everywhere:

* a value: it was observed;
* ``None`` or an empty tuple: it was looked for, and there is none;
* ``Unknown(why)``: it could not be observed. It is never a guess and never "healthy".

Sizes are bytes. Versions are the strings that the source prints. A path is where the fact was read, as the machine
itself would name it (without the ``--root`` prefix). Every class names its source in its docstring; a finding quotes
it as evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gpudoctor.contents import Architecture, Contents


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that could not be observed. ``why`` is a clause that reads well after "unknown: "."""

    why: str


# ---------------------------------------------------------------- the machine


@dataclass(frozen=True, slots=True)
class User:
    """Who runs the doctor, and whether they could become root (from ``os`` and the group database)."""

    name: str
    uid: int
    groups: tuple[str, ...]
    may_sudo: bool | Unknown
    """Root itself, or a member of sudo, wheel or admin."""


@dataclass(frozen=True, slots=True)
class System:
    """/etc/os-release, uname, /proc and DMI."""

    os_id: str
    """``ID`` of os-release: ubuntu, debian, ..."""
    os_version: str
    """``VERSION_ID``: 22.04; empty where the release has none."""
    os_name: str
    """``PRETTY_NAME``."""
    kernel: str
    """``uname -r``, such as 6.2.0-26-generic. Below ``--root`` it is the newest folder in /lib/modules if
    proc/sys/kernel/osrelease is absent there."""
    machine: str
    """``uname -m``: x86_64 or aarch64."""
    wsl: int
    """0 outside Windows Subsystem for Linux, else its version 1 or 2 (/proc/version, /dev/dxg)."""
    container: str | None
    """docker, podman, kubernetes, lxc, systemd-nspawn, apptainer or "container" when only that much is known."""
    product: str | None
    """DMI vendor and product name, or the device-tree model on Arm boards."""
    platform: str | None
    """A machine whose driver is somebody else's business: jetson (/etc/nv_tegra_release or the device tree), dgx
    (/etc/dgx-release), None otherwise."""
    scheduler: str | None
    """The batch system that started this process: slurm, pbs, lsf, kubernetes; None otherwise."""
    memory_total: int | Unknown
    memory_available: int | Unknown
    """MemTotal and MemAvailable of /proc/meminfo, in bytes."""
    memory_limit: int | None
    """The cgroup's memory limit in bytes, where there is one."""
    shm_total: int | None | Unknown
    """Size of /dev/shm in bytes; None where it is not mounted."""
    cmdline: str | Unknown
    """/proc/cmdline."""
    user: User


@dataclass(frozen=True, slots=True)
class PciDevice:
    """One display controller, 3D controller or NVIDIA bridge, from /sys/bus/pci/devices."""

    address: str
    """domain:bus:device.function, such as 0000:01:00.0."""
    vendor: str
    """Four hex digits, lower case: 10de is NVIDIA."""
    device: str
    pci_class: str
    """Six hex digits: 0300xx VGA, 0302xx 3D controller, 0680xx bridge (NVSwitch)."""
    name: str | None
    """From our table of GPUs or pci.ids; None when neither knows it."""
    driver: str | None
    """The kernel driver that is bound to it: nvidia, nouveau, vfio-pci, ...; None when no driver is."""
    power: str | None
    """power/runtime_status: active, suspended, ...; a suspended dGPU is left asleep."""
    responds: bool | Unknown
    """False when its configuration space reads as all ones: it has fallen off the bus."""


# ---------------------------------------------------------------- kernel and driver


@dataclass(frozen=True, slots=True)
class KernelImage:
    """One installed kernel: a folder of /lib/modules, with what ``modinfo -b ROOT -k RELEASE nvidia`` says of its module."""

    release: str
    running: bool
    newest: bool
    """The one that boots next by default: the highest version that has an image in /boot."""
    headers: bool
    """``/lib/modules/RELEASE/build`` leads to a folder that exists."""
    module_path: str | None
    """The nvidia.ko (possibly .zst or .xz) for this kernel; None when there is none."""
    module_version: str | None | Unknown
    module_license: str | None | Unknown
    """"NVIDIA" is the proprietary module, "Dual MIT/GPL" the open one."""
    module_signer: str | None | Unknown
    """None when the module is not signed."""
    module_key: str | None | Unknown
    """``sig_key``: the fingerprint of the key that signed it, upper-case hex pairs joined by colons."""


@dataclass(frozen=True, slots=True)
class DkmsBuild:
    """One kernel for which DKMS holds, or tried to build, the nvidia module (/var/lib/dkms/nvidia*)."""

    version: str
    kernel: str
    state: str
    """added, built, installed or failed (a make.log for this kernel ends in an error)."""
    log: str | None
    """The last lines of make.log that name the error, when it failed."""


@dataclass(frozen=True, slots=True)
class ConfigLine:
    """A line of configuration that matters: file and text (modprobe.d, the kernel command line)."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """Kernel modules, DKMS, Secure Boot: /proc/modules, /sys/module, /lib/modules, /etc/modprobe.d, efivars, mokutil."""

    loaded: tuple[str, ...] | Unknown
    """Those of nvidia, nvidia_uvm, nvidia_drm, nvidia_modeset, nvidia_peermem, nouveau, nova_core, vfio_pci, amdgpu, i915,
    xe that are loaded."""
    images: tuple[KernelImage, ...] | Unknown
    dkms: tuple[DkmsBuild, ...] | Unknown
    secure_boot: bool | None | Unknown
    """None on a machine without EFI."""
    mok_pending: bool | Unknown
    """An enrolment was asked for (mokutil --import) and not yet confirmed at boot."""
    enrolled_keys: tuple[str, ...] | Unknown
    """Fingerprints (subject key identifiers, upper-case hex pairs joined by colons) of ``mokutil --list-enrolled``."""
    modprobe: tuple[ConfigLine, ...]
    """Lines that blacklist, alias off or install away nvidia*, blacklist nouveau, or give devices to vfio-pci."""
    suspended_since_boot: bool | Unknown
    """The kernel log has a "PM: suspend exit" of this boot."""


@dataclass(frozen=True, slots=True)
class NextBoot:
    """What the next start will load: GRUB's settings and menu, /boot, /etc/modprobe.d. All of it is read from files."""

    kernel: str | Unknown
    """The release of the kernel that boots next. Compare ``KernelImage.newest``, which is only the default of GRUB."""
    chosen_by: str
    """first (of GRUB's menu: the newest kernel), fixed (GRUB_DEFAULT names it), saved (grub-set-default), once (grub-reboot), only
    (no other kernel is in /boot); empty where the kernel is unknown."""
    entry: ConfigLine | None
    """The setting that chooses it, where one does."""
    initrd: str | None | Unknown
    """The initial RAM disk of that kernel in /boot; None where there is none, or an empty file."""
    needs_initrd: bool | Unknown
    """Kernels of this machine start with one: some kernel has one, or a tool that makes them is there and the kernel that boots is
    not the one that runs. False where GRUB is told to go without (GRUB_FORCE_PARTUUID, as on some cloud images)."""
    newer_settings: tuple[ConfigLine, ...] | Unknown
    """Lines about nvidia*, nouveau and vfio-pci in files of /etc/modprobe.d that were written after that initial RAM disk."""


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package of the distribution, from /var/lib/dpkg/status."""

    name: str
    version: str
    held: bool
    state: str
    """installed, half-configured, unpacked, config-files, ..."""


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """One file that answers to a library's soname, in the order in which the loader would meet it."""

    soname: str
    path: str
    real_path: str
    version: str | None
    """From the real file's name: libcuda.so.535.86.10 -> 535.86.10."""
    size: int
    origin: str
    """Why the loader looks there: LD_LIBRARY_PATH, rpath, ld.so.conf, default, wsl."""


@dataclass(frozen=True, slots=True)
class Service:
    """One systemd unit (systemctl is-enabled, is-active)."""

    unit: str
    installed: bool
    active: str | Unknown
    """active, inactive, failed, ..."""


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """One /dev/nvidia* or /dev/dxg node."""

    path: str
    mode: str
    """As ls prints it without the type: rw-rw-rw-."""
    owner: str
    group: str
    usable: bool
    """This user may read and write it."""


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver as its files tell it: the loaded module, the libraries, the packages, the device nodes."""

    module_version: str | None | Unknown
    """/sys/module/nvidia/version, else /proc/driver/nvidia/version; None when the module is not loaded."""
    module_flavour: str | None | Unknown
    """open or proprietary; None when the module is not loaded."""
    version_line: str | None
    """The NVRM line of /proc/driver/nvidia/version."""
    libraries: tuple[LibraryFile, ...] | Unknown
    """Every libcuda.so.1 and libnvidia-ml.so.1, per soname the loader's choice first."""
    packages: tuple[Package, ...] | Unknown
    """Packages of the driver, its modules, CUDA, cuDNN, NCCL, the container toolkit and the fabric manager."""
    runfile: bool
    """/usr/bin/nvidia-uninstall is there: NVIDIA's .run installer was used."""
    prime: str | None
    """/etc/prime-discrete: on, off, on-demand; None where there is no such file."""
    services: tuple[Service, ...] | Unknown
    """nvidia-persistenced, nvidia-fabricmanager, docker, where installed."""
    nodes: tuple[DeviceNode, ...] | Unknown
    container_toolkit: bool
    """nvidia-ctk or nvidia-container-runtime is on the machine."""
    docker: str | None
    """Path of the docker client, if any; below /snap/ it is the snap."""
    cdi: tuple[ConfigLine, ...]
    """For each CDI specification of NVIDIA devices the library version that it names: (path, version)."""


# ---------------------------------------------------------------- NVML


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU (NVML; user and command from /proc)."""

    pid: int
    used: int | Unknown
    kind: str
    """compute or graphics."""
    user: str | None
    """None when the process cannot be seen from here (another PID namespace, or gone)."""
    command: str | None
    state: str | None
    """The letter of /proc/PID/stat: D is uninterruptible, Z a zombie."""


@dataclass(frozen=True, slots=True)
class MigDevice:
    """One MIG instance."""

    uuid: str
    name: str
    memory_total: int | Unknown
    memory_free: int | Unknown


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML sees it. A value that this GPU or driver does not offer is Unknown("not supported")."""

    index: int
    error: str | None
    """NVML's words when the device itself could not be opened or asked ("GPU is lost"); the rest is Unknown then."""
    error_code: int | None
    uuid: str | Unknown
    name: str | Unknown
    pci_address: str | Unknown
    """domain:bus:device.function in lower case with a four-digit domain, comparable to PciDevice.address."""
    compute_capability: str | Unknown
    """major.minor: 8.9."""
    memory_total: int | Unknown
    memory_free: int | Unknown
    memory_used: int | Unknown
    processes: tuple[GpuProcess, ...] | Unknown
    compute_mode: str | Unknown
    """default, exclusive-process, prohibited or exclusive-thread."""
    mig: bool | Unknown
    mig_pending: bool | Unknown
    mig_devices: tuple[MigDevice, ...] | Unknown
    persistence: bool | Unknown
    display_active: bool | Unknown
    pcie_generation: int | Unknown
    pcie_generation_max: int | Unknown
    pcie_width: int | Unknown
    pcie_width_max: int | Unknown
    utilization: int | Unknown
    """Per cent of the last sample period in which a kernel ran."""
    throttle: tuple[str, ...] | Unknown
    """Names of the active clock event reasons: idle, app-clocks, power-cap, hw-slowdown, sync-boost, sw-thermal,
    hw-thermal, power-brake, display."""
    ecc_uncorrected: int | Unknown
    """Volatile uncorrected errors; Unknown on cards without ECC."""
    remap_pending: bool | Unknown
    remap_failed: bool | Unknown
    temperature: int | Unknown
    """Degrees Celsius."""
    power_draw: int | Unknown
    power_limit: int | Unknown
    """Milliwatts."""
    fabric: str | Unknown
    """NVLink fabric: not-supported, not-started, in-progress, completed, or completed with an error: failed."""
    virtualization: str | Unknown
    """none, passthrough, vgpu, host-vgpu, host-vsga."""
    vgpu_licensed: bool | None | Unknown
    """None where there is no vGPU."""


@dataclass(frozen=True, slots=True)
class Nvml:
    """What libnvidia-ml.so.1 said, through nvidia-ml-py in a child."""

    library: str | None
    """The file that was loaded."""
    error_code: int | None
    """The code with which loading (12) or nvmlInit failed; None when it answered."""
    error: str | None
    """The loader's own text ("file too short") or NVML's words for that code."""
    crashed: str | None
    """The signal that ended the child, such as SIGSEGV, with the call it was in."""
    hung: str | None
    """The call that did not return within the deadline."""
    driver_version: str | Unknown
    cuda_version: int | Unknown
    """CUDA driver version as major*1000 + minor*10: 12020."""
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class NvidiaSmi:
    """The banner of nvidia-smi, in both layouts ("Driver Version / CUDA Version" and "KMD Version / CUDA UMD Version")."""

    path: str
    exit_code: int | None
    """None when it gave no answer in time or died by a signal."""
    driver_version: str | None
    cuda_version: str | None
    text: str
    """Its first lines, decoded with replacement: what a person sees."""


@dataclass(frozen=True, slots=True)
class CudaDriver:
    """cuDriverGetVersion of the libcuda.so.1 that the target interpreter would load (a ctypes child of that interpreter)."""

    path: str | None
    version: int | None
    """major*1000 + minor*10; None when it could not be loaded or asked."""
    error: str | None


# ---------------------------------------------------------------- toolkits and libraries


@dataclass(frozen=True, slots=True)
class Toolkit:
    """One CUDA toolkit: nvcc on PATH, CUDA_HOME, /usr/local/cuda*, Ubuntu's nvidia-cuda-toolkit."""

    path: str
    """Its folder (real path)."""
    nvcc: str | None
    version: str | Unknown
    """major.minor from nvcc --version, version.json, version.txt or cuda.h."""
    full_version: str | Unknown
    found_by: tuple[str, ...]
    """PATH, CUDA_HOME, CUDA_PATH, /usr/local/cuda, /usr/local."""
    origin: str
    """nvidia, ubuntu, conda, pip or other."""
    gcc_max: int | Unknown
    """Highest gcc major that its crt/host_config.h accepts."""
    problem: str | None
    """What is wrong with its files (an unreadable version.json), in words."""


@dataclass(frozen=True, slots=True)
class BuildTools:
    """What compiles extensions, and what Triton and torch.compile need at run time."""

    gcc: str | None
    gcc_version: str | None | Unknown
    python_header: bool | Unknown
    """Python.h of the target interpreter is there."""


@dataclass(frozen=True, slots=True)
class LibraryCopy:
    """One copy of cuDNN or NCCL on the machine."""

    kind: str
    """cudnn or nccl."""
    version: str | Unknown
    """major.minor.patch."""
    path: str
    origin: str
    """wheel, torch (bundled), conda, system, toolkit, LD_LIBRARY_PATH."""
    package: str | None
    """nvidia-cudnn-cu12, libcudnn9-cuda-12, ..."""
    cuda_major: int | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """Which file the loader would take for one of PyTorch's CUDA libraries, and which one PyTorch brought.

    libcudnn.so only dispatches: the cuDNN that computes is the part it opens, libcudnn_graph.so.9 or libcudnn_ops_infer.so.8.
    """

    soname: str
    taken: str | None
    """None when none would be found."""
    taken_by: str | None
    """LD_LIBRARY_PATH, rpath, preload (PyTorch opens it by its path), ld.so.conf or default."""
    taken_version: str | None
    own: str | None
    """The copy of the wheel's own dependency; None where PyTorch brings none."""
    own_version: str | None


# ---------------------------------------------------------------- the target interpreter


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that is examined, as it says of itself (a child with -I), and who owns its environment."""

    path: str
    """As the user would type it."""
    chosen_by: str
    """--python, VIRTUAL_ENV, CONDA_PREFIX, own, PATH."""
    version: str
    tag: str
    """cp310, cp313t: as in wheel names."""
    machine: str
    glibc: str | None
    prefix: str
    site_packages: tuple[str, ...]
    owner: str
    """Who changes packages here: pip, uv, conda, pixi, poetry, or system (a Python that PEP 668 protects)."""
    has_pip: bool
    project: str | None
    """The project folder of uv, pixi or poetry, where the environment belongs to one."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One nvidia-* (or triton, cuda-toolkit) requirement of the torch wheel for this platform, and what is installed."""

    name: str
    wanted: str
    """The specifier: ==12.4.127."""
    installed: str | None
    satisfied: bool


@dataclass(frozen=True, slots=True)
class Torch:
    """PyTorch in the target interpreter, read from its files without importing it."""

    version: str
    cuda: str | None
    """torch.version.cuda; None in a build without CUDA."""
    hip: str | None
    git: str | None
    path: str
    """Its folder."""
    installer: str | None
    """INSTALLER of its dist-info: pip, uv, conda; None if unknown."""
    sm: tuple[str, ...] | Unknown
    """Compute capabilities with machine code in the build, "8.0"; architecture-specific ones carry their letter: "9.0a"."""
    ptx: tuple[str, ...] | Unknown
    """Compute capabilities with PTX."""
    nccl_built_in: bool | Unknown
    cudnn_built_for: str | None | Unknown
    """The cuDNN that the wheel pins, major.minor.patch (it may have been compiled with older headers); only the major version
    where nothing is pinned; None in a build without cuDNN."""
    pins: tuple[Pin, ...]
    missing_libraries: tuple[str, ...] | Unknown
    """Sonames that its CUDA libraries need and nothing on the search path provides (libcuda.so.1 apart)."""
    duplicates: tuple[str, ...]
    """Further torch metadata beside the one in use: "2.1.0 (torch-2.1.0.dist-info)", "2.3.0 (conda-meta/pytorch-2.3.0...json)"."""
    missing_files: tuple[str, ...]
    """Files that RECORD lists among the ones PyTorch cannot start without and that are not there (at most 5)."""
    missing_bytecode: bool
    """No __pycache__ of its own: the first import is slow."""
    resolutions: tuple[Resolution, ...]


@dataclass(frozen=True, slots=True)
class TorchImport:
    """What a child of the target interpreter said after ``import torch``."""

    seconds: float
    version: str | None
    cuda: str | None
    available: bool | None
    """torch.cuda.is_available(); None when it never got there."""
    device_count: int | None
    arch_list: tuple[str, ...]
    nccl: bool | None
    cudnn: int | None
    error: str | None
    """Last lines of the traceback, or the text of the CUDA warning that explains why is_available() is False."""
    signal: str | None
    """The signal that ended it, such as SIGSEGV."""
    hung: bool
    phase: str
    """How far it came: start, import, available, devices, done."""


@dataclass(frozen=True, slots=True)
class Companion:
    """A package compiled against torch: torchvision, torchaudio, flash-attn, bitsandbytes, xformers, vllm, read statically."""

    name: str
    version: str
    wants_torch: str | None
    """The torch requirement of its metadata or file names: "==2.4.1", "2.6"; None when it names none."""
    wants_cuda: str | None
    """CUDA of its build: "12.4", or "cpu"; None when it does not say."""
    problem: str | None
    """Words for a part of it that is missing or cannot be read."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Another Python environment on this machine, with the PyTorch in it."""

    python: str
    kind: str
    """venv, uv, conda, pixi, poetry, jupyter, system."""
    name: str
    """The folder's, environment's or kernel's name."""
    torch: str | None
    torch_cuda: str | None


@dataclass(frozen=True, slots=True)
class Symptom:
    """A known error text met in a log, with the values captured from it."""

    id: str
    """Names a row of knowledge/symptoms.toml."""
    text: str
    source: str
    values: tuple[tuple[str, str], ...] = ()

    def value(self, name: str) -> str | None:
        """The captured value of that name, or None."""
        return dict(self.values).get(name)


@dataclass(frozen=True, slots=True)
class Complaint:
    """A text that somebody pasted: a traceback, a log, the output of a program. What else it tells stands in the other facts."""

    source: str
    """Its file's name, or "stdin"."""
    symptoms: tuple[Symptom, ...]
    """The known texts in it, in its order; what only tells where and how among them."""
    names: tuple[str, ...] = ()
    """Models and packages that it names, in lower case: llama-2-7b, flash_attn."""
    cut: bool = False
    """It was too long: its middle was not read."""


# ---------------------------------------------------------------- the smoke test


@dataclass(frozen=True, slots=True)
class Completion:
    """One prompt and what came of it."""

    prompt: str
    tokens: tuple[int, ...]
    """Prompt included where echo was asked for."""
    text: str | None
    """None where no tokenizer could make words of the tokens."""
    logprobs: tuple[float, ...] | None
    """Natural logarithms, one for each of ``tokens``; None where they were not asked for."""


@dataclass(frozen=True, slots=True)
class Smoke:
    """A minimal generate in the target interpreter: how far it came, what it proved, how it ended. Sizes are bytes."""

    checkpoint: str
    format: str
    """meta, hf, gguf, llama2c, transformers, or none for random weights."""
    weights: str
    """real or random."""
    parameters: int | None
    phase: str
    """The one it was in when it ended (gpudoctor.smoke.plan.PHASES); done when all was done."""
    error: str | None
    """Last lines of the traceback, or what the process left on stderr."""
    symptoms: tuple[Symptom, ...]
    """Known error texts in the error and on stderr."""
    signal: str | None
    """The signal that ended it, such as SIGKILL."""
    hung: bool
    device: str | None
    """cuda or cpu, as used."""
    device_name: str | None
    dtype: str | None
    processes: int
    backend: str | None
    """nccl or gloo; None where torch.distributed was not started."""
    all_reduce: bool | None
    """Whether the sum over all processes was right."""
    all_reduce_bandwidth: int | None
    """Bus bandwidth, bytes per second: size / time x 2 (n - 1) / n, as nccl-tests counts it."""
    finite: bool | None
    difference: float | None
    """Largest difference between the CPU's and the GPU's logits, over the largest logit; None where not compared."""
    tolerance: float | None
    repeatable: bool | None
    """Two greedy runs gave the same tokens."""
    new_tokens: int
    seconds_to_first_token: float | None
    """From the start of the first prefill."""
    seconds_total: float
    tokens_per_second: float | None
    """Decoding of one sequence, the first token apart."""
    bytes_per_token: int | None
    """Weights and cache that decoding one token reads."""
    bandwidth: int | None
    """Memory bandwidth measured on this device in the same run: a device copy's reads and writes, or a CPU's reads."""
    predicted_memory: int | None
    """What weights, cache and activations add up to, counted before anything is loaded: comparable to ``peak_memory`` on a GPU."""
    needed_memory: int | None
    """The same with what has to be free beside it."""
    free_memory: int | None
    """What the device said was free then."""
    peak_memory: int | None
    """The most that PyTorch had allocated on a GPU; on a CPU the most that the process had, its libraries included."""
    completions: tuple[Completion, ...]
    notes: tuple[str, ...]
    """What a reader should know: no tokenizer, a dtype that was chosen for this GPU."""

    @property
    def came_through(self) -> bool:
        """It did all it had to do, whatever that proved."""
        return self.phase == "done" and not (self.error or self.signal or self.hung)


@dataclass(frozen=True, slots=True)
class Skipped:
    """It was left out on purpose. ``reason`` is a clause that reads well after "skipped: "."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model that is to run on this machine (``check --model``), from its headers or from our table, and what it is to do."""

    name: str
    hf: str | None
    """Its repository on Hugging Face, where that is known."""
    architecture: Architecture
    embedding: int
    head: int
    linear: int
    other: int
    """How many weights it has of each role (``contents.Group``)."""
    mxfp4: int
    """How many of them are published in four bits."""
    contents: Contents | None
    """Its files; None for a model that is known by name only."""
    runtime: str
    version: str | None
    """The runtime's, where that makes a difference."""
    dtype: str | None
    """None: as its files have it, or as it is published."""
    batch: int
    prompt: int
    new: int
    length: int | None
    """Positions that the runtime makes room for; None: prompt and new ones."""
    gpus: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything known about one machine."""

    taken: str = ""
    """When, as an ISO 8601 time in UTC; empty when nobody said."""
    system: System | Unknown = Unknown("nobody looked")
    pci: tuple[PciDevice, ...] | Unknown = Unknown("nobody looked")
    kernel: Kernel | Unknown = Unknown("nobody looked")
    driver: Driver | Unknown = Unknown("nobody looked")
    next_boot: NextBoot | Unknown = Unknown("nobody looked")
    nvml: Nvml | Unknown = Unknown("nobody looked")
    nvidia_smi: NvidiaSmi | None | Unknown = Unknown("nobody looked")
    cuda_driver: CudaDriver | Unknown = Unknown("nobody looked")
    toolkits: tuple[Toolkit, ...] | Unknown = Unknown("nobody looked")
    build_tools: BuildTools | Unknown = Unknown("nobody looked")
    libraries: tuple[LibraryCopy, ...] | Unknown = Unknown("nobody looked")
    interpreter: Interpreter | None | Unknown = Unknown("nobody looked")
    torch: Torch | None | Unknown = Unknown("nobody looked")
    torch_import: TorchImport | None | Unknown = Unknown("nobody looked")
    """None when there is no torch to import."""
    companions: tuple[Companion, ...] | Unknown = Unknown("nobody looked")
    environments: tuple[Environment, ...] | Unknown = Unknown("nobody looked")
    variables: tuple[tuple[str, str], ...] | Unknown = Unknown("nobody looked")
    """Environment variables that matter, sorted by name."""
    kernel_log: tuple[Symptom, ...] | Unknown = Unknown("nobody looked")
    smoke: Smoke | Skipped | Unknown = Skipped("not asked for")
    """What the smoke test came to."""
    wanted: Wanted | None | Unknown = None
    """The model that was asked about; None where none was."""
    complaint: Complaint | None = None
    """The text that is judged; None where a machine is."""
    slow: tuple[tuple[str, float], ...] = field(default=())
    """Probes that took longer than a second: (name, seconds)."""

    def variable(self, name: str) -> str | None:
        """The value of an environment variable; None where it is not set or nobody could look."""
        return None if isinstance(self.variables, Unknown) else dict(self.variables).get(name)
