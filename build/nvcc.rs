//! NVIDIA's compiler: where it is, what it is told, and what it reports.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::objects::{self, Job, Object};

/// What is lacking, and how to get it.
pub const MISSING: &str = "no nvcc of version 12.8 or later was found. Either `pip install nvidia-cuda-nvcc==13.0.* \
    nvidia-cuda-crt==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-runtime==13.0.* nvidia-cuda-cccl==13.0.*` in a virtual \
    environment (.venv, or an active one) or install the CUDA toolkit; then build with FLAMANT_REQUIRE_KERNELS=1";

/// The first version that knows all default architectures.
const VERSION_MIN: (u32, u32) = (12, 8);
/// A100 and its kin (8.x), H100 (9.0), B200 and B300 (10.x), RTX 50 (12.x), and PTX that drivers compile for any other
/// card after A100. Machine code for plain 10.0 runs on 10.3 too; 100f would serve the same cards and is unknown before
/// 12.9. Each costs half a minute of one core, once (measured 2026-11-30 with nvcc 13.0: 29 s for 10.0, 27 s for 9.0a),
/// and 10.0 makes the fat binaries 3.3 MB instead of 2.7. Without it a B200's driver compiles PTX at first start.
const ARCHITECTURES: &str = "80,90a,100,120,ptx80";

/// A compiler that runs.
pub struct Nvcc {
    path: PathBuf,
    version: String,
    /// Its release of CUDA.
    release: (u32, u32),
}

/// What came out of the sources.
#[derive(Default)]
pub struct Compiled {
    /// Name and fat binary of each source.
    pub modules: Vec<(String, PathBuf)>,
    /// What they have code for, as nvcc names it: "sm_90a", or "compute_80" for PTX.
    pub architectures: Vec<String>,
    /// The release of CUDA that the compiler is of.
    pub release: (u32, u32),
    /// A line for each kernel and architecture.
    pub report: String,
}

/// What to compile for: `80` is machine code for compute capability 8.0, `ptx80` is PTX for it.
struct Architecture {
    number: String,
    ptx: bool,
}

/// The compiler that `NVCC` names, or the first that is found. `root` is where the package lies.
///
/// # Errors
/// If the one that `NVCC` names does not run, or is too old.
pub fn find(root: &Path) -> Result<Option<Nvcc>, String> {
    if let Some(path) = setting("NVCC") {
        return Nvcc::open(path.into()).map(Some);
    }
    let file = format!("nvcc{}", env::consts::EXE_SUFFIX);
    let folders =
        ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(|name| Some(Path::new(&setting(name)?).join("bin")));
    let environments = setting("VIRTUAL_ENV").map(PathBuf::from).into_iter().chain([root.join(".venv")]);
    let wheels = environments.flat_map(|environment| wheel_folders(&environment));
    // Not watched: it differs from shell to shell, and each change would compile the library again.
    let path: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    let newest_first = matching(Path::new("/usr/local"), "cuda").into_iter().rev().map(|folder| folder.join("bin"));
    let usual = newest_first.chain([PathBuf::from("/opt/cuda/bin")]);
    let mut candidates = folders.chain(wheels).chain(path).chain(usual).map(|folder| folder.join(&file));
    Ok(candidates.find_map(|path| Nvcc::open(path).ok()))
}

/// Where pip puts the compiler, by version of the wheels.
fn wheel_folders(environment: &Path) -> Vec<PathBuf> {
    let mut libraries = matching(&environment.join("lib"), "python3");
    libraries.push(environment.join("Lib"));
    let nvidia = libraries.into_iter().map(|library| library.join("site-packages/nvidia"));
    nvidia.flat_map(|nvidia| [nvidia.join("cu13/bin"), nvidia.join("cuda_nvcc/bin")]).collect()
}

/// The entries of a folder whose names begin with `start`, in the order of their names.
fn matching(folder: &Path, start: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// A setting of the environment that is not empty.
fn setting(name: &str) -> Option<OsString> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var_os(name).filter(|value| !value.is_empty())
}

impl Architecture {
    /// As nvcc names it.
    fn name(&self) -> String {
        format!("{}_{}", if self.ptx { "compute" } else { "sm" }, self.number)
    }
}

impl Nvcc {
    fn open(path: PathBuf) -> Result<Nvcc, String> {
        let said = objects::run(Command::new(&path).arg("--version"))?;
        let version = said.split("release ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        let release = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if release < VERSION_MIN {
            let (major, minor) = VERSION_MIN;
            return Err(format!("{}: expected version {major}.{minor} or later, found {version:?}", path.display()));
        }
        Ok(Nvcc { path, version: said, release })
    }

    /// A fat binary for each source, with code for all architectures.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, sources: &[PathBuf], kept: &Path, out: &Path) -> Result<Compiled, String> {
        println!("cargo::rerun-if-changed={}", self.path.display());
        let architectures = architectures()?;
        let jobs: Vec<Job> = sources
            .iter()
            .flat_map(|source| architectures.iter().map(|architecture| self.job(source, architecture)))
            .collect();
        let objects = objects::compile(&jobs, kept).map_err(|message| {
            let no_host = message.contains("host compiler");
            if no_host {
                format!("nvcc needs a C++ compiler of its host, g++, to read sources\n{message}")
            } else {
                message
            }
        })?;
        let names = architectures.iter().map(Architecture::name).collect();
        let mut compiled = Compiled { architectures: names, release: self.release, ..Compiled::default() };
        for (source, objects) in sources.iter().zip(objects.chunks(architectures.len())) {
            let name = stem(source);
            let fat = out.join(format!("{name}.fatbin"));
            self.join(&architectures, objects, &fat)?;
            compiled.modules.push((name, fat));
            for object in objects {
                report(&object.messages, &mut compiled.report);
            }
        }
        Ok(compiled)
    }

    fn job(&self, source: &Path, architecture: &Architecture) -> Job {
        let (kind, extension) = if architecture.ptx { ("-ptx", "ptx") } else { ("-cubin", "cubin") };
        let (code, architecture) = (architecture.name(), format!("-arch={}", architecture.name()));
        // Without -fmad=false the compiler joins products and sums as it likes, in one form of a kernel otherwise than
        // in another, and their bits would differ. Sums that are to be joined say fmaf.
        let arguments = [kind, &architecture, "-std=c++17", "-O3", "-fmad=false", "-Xptxas", "-v"];
        let arguments = arguments.map(OsString::from).to_vec();
        let name = (format!("{}-{code}", stem(source)), extension);
        let (program, version) = (self.path.clone(), self.version.clone());
        Job { name, source: source.to_path_buf(), program, arguments, version }
    }

    /// How a source becomes PTX for an architecture such as `90a`: for tests, which run it.
    #[allow(dead_code, reason = "tests include this file")]
    pub fn ptx(&self, source: &Path, architecture: &str) -> Job {
        self.job(source, &Architecture { number: architecture.to_owned(), ptx: true })
    }

    /// Puts the objects of one source into one file, of which a driver picks what its card can run.
    fn join(&self, architectures: &[Architecture], objects: &[Object], fat: &Path) -> Result<(), String> {
        let mut command = Command::new(self.path.with_file_name(format!("fatbinary{}", env::consts::EXE_SUFFIX)));
        command.args(["-64", "--compress-all"]).arg(format!("--create={}", fat.display()));
        for (architecture, object) in architectures.iter().zip(objects) {
            let kind = if architecture.ptx { "ptx" } else { "elf" };
            command.arg(format!("--image3=kind={kind},sm={},file={}", architecture.number, object.path.display()));
        }
        objects::run(&mut command).map(|_| ())
    }
}

fn stem(source: &Path) -> String {
    source.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn architectures() -> Result<Vec<Architecture>, String> {
    let list = setting("FLAMANT_CUDA_ARCHITECTURES").unwrap_or_else(|| ARCHITECTURES.into());
    let list = list.to_string_lossy();
    let parse = |item: &str| {
        let (ptx, number) = item.strip_prefix("ptx").map_or((false, item), |number| (true, number));
        let digits = number.trim_end_matches(['a', 'f']);
        let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        valid.then(|| Architecture { number: number.to_string(), ptx }).ok_or_else(|| {
            format!("FLAMANT_CUDA_ARCHITECTURES: expected a list like {ARCHITECTURES}, found {item:?} in it")
        })
    };
    list.split(',').map(|item| parse(item.trim())).collect()
}

/// Adds a line for each kernel that `messages` of ptxas tell of:
/// `kernel architecture: registers N, spills N, stack N, shared N`, the last three in bytes.
fn report(messages: &str, report: &mut String) {
    let mut kernel = String::new();
    let (mut spills, mut stack) = (0, 0);
    for line in messages.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            kernel = rest.trim_end_matches('\'').replace("' for '", " ");
        } else if line.contains("bytes stack frame") {
            stack = number_before(line, "bytes stack frame");
            spills = number_before(line, "bytes spill stores") + number_before(line, "bytes spill loads");
        } else if line.contains(": Used ") {
            let registers = number_before(line, "registers");
            let shared = number_before(line, "bytes smem");
            writeln!(report, "{kernel}: registers {registers}, spills {spills}, stack {stack}, shared {shared}")
                .expect("strings take all that is written");
        }
    }
}

/// The number that stands before `unit`; 0 if there is none.
fn number_before(line: &str, unit: &str) -> u32 {
    let before = line.split(unit).next().filter(|before| before.len() < line.len());
    before.and_then(|before| before.split_whitespace().last()?.parse().ok()).unwrap_or(0)
}
