//! The GPUs of this machine, for `flamant devices`.

use std::ffi::c_int;

use super::context::{Context, CudaDevice};
use super::functions::{Functions, version_text};
use super::{COMPUTE_CAPABILITY_MIN, Compiled, NO_KERNELS};
use crate::error::{Error, Result};

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDevice {
    /// Its number.
    pub index: usize,
    /// Its name, as its driver gives it.
    pub name: String,
    /// Major and minor number.
    pub compute_capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory in all.
    pub memory_total: u64,
    /// Bytes that are free now; none if the GPU could not be asked.
    pub memory_free: Option<u64>,
    /// Which of the architectures that kernels are compiled for serves it, or why it cannot be used.
    pub kernels: std::result::Result<String, String>,
}

/// The GPUs of this machine.
///
/// # Errors
/// Why there is none: no driver, or one that is too old or sees no GPU.
pub fn devices(compiled: &Compiled) -> Result<Vec<FoundDevice>> {
    let cuda = Functions::get()?;
    (0..cuda.devices()?).map(|index| found(CudaDevice::new(cuda, index)?, compiled)).collect()
}

/// The number of the first GPU that our kernels serve, or why there is none. Nothing where nobody would expect one: in
/// a program without kernels, or on a machine without a driver. No GPU is woken for it.
pub fn first_usable(compiled: &Compiled) -> Option<std::result::Result<usize, String>> {
    if compiled.architectures.is_empty() || !Functions::are_there() {
        return None;
    }
    let usable = |cuda, index| {
        let gpu = CudaDevice::new(cuda, index)?;
        serving(gpu, compiled)?.map_err(|reason| Error::device(gpu.label(), reason))
    };
    let first = Functions::get().and_then(|cuda| {
        let mut refused = None;
        for index in 0..cuda.devices()? {
            match usable(cuda, index) {
                Ok(_) => return Ok(index),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| Error::device("cuda", "the NVIDIA driver sees no GPU")))
    });
    Some(first.map_err(|error| error.to_string()))
}

fn found(gpu: CudaDevice, compiled: &Compiled) -> Result<FoundDevice> {
    let memory_free = Context::retain(gpu).and_then(|context| context.memory());
    let kernels = match (serving(gpu, compiled)?, &memory_free) {
        (Ok(_), Err(error)) => Err(error.to_string()),
        (kernels, _) => kernels,
    };
    Ok(FoundDevice {
        index: gpu.index,
        name: gpu.name()?,
        compute_capability: gpu.compute_capability()?,
        multiprocessors: gpu.multiprocessors()?,
        memory_total: gpu.memory()?,
        memory_free: memory_free.ok().map(|(free, _)| free),
        kernels,
    })
}

/// Which of the architectures that kernels are compiled for serves a GPU, or why it cannot be used.
pub fn serving(gpu: CudaDevice, compiled: &Compiled) -> Result<std::result::Result<String, String>> {
    let (capability, driver) = (gpu.compute_capability()?, gpu.cuda.driver_version()?);
    Ok(choose(compiled, capability, driver))
}

/// As [`serving`], for a compute capability and a driver of that version.
fn choose(compiled: &Compiled, capability: (u32, u32), driver: c_int) -> std::result::Result<String, String> {
    if capability < COMPUTE_CAPABILITY_MIN {
        let ((major, minor), (least_major, least_minor)) = (capability, COMPUTE_CAPABILITY_MIN);
        return Err(format!("compute capability {major}.{minor}, the kernels need {least_major}.{least_minor}"));
    }
    let architecture = best(compiled.architectures, capability)?;
    let wanted = driver_wanted(compiled.release, &architecture);
    if driver < wanted {
        let (major, minor) = compiled.release;
        let [found, wanted] = [driver, wanted].map(version_text);
        return Err(format!(
            "the NVIDIA driver is too old for the kernels, by nvcc {major}.{minor} (for CUDA {found}, {wanted} is the \
             least): update it"
        ));
    }
    Ok(architecture)
}

/// The least version of CUDA that a driver has to be for, to take what nvcc of a release made. Machine code is taken by
/// all drivers of the same major version ("minor version compatibility" in NVIDIA's guide "CUDA Compatibility"; 12 is
/// from driver 525 on, 13 from 580), PTX only by those that are as new as the compiler, whose version of PTX it has.
fn driver_wanted((major, minor): (u32, u32), architecture: &str) -> c_int {
    let minor = if architecture.starts_with("sm_") { 0 } else { minor };
    (1000 * major + 10 * minor) as c_int
}

/// Which of `architectures` the driver takes for a GPU: machine code before what it must compile, the newest first.
fn best(architectures: &[&str], (major, minor): (u32, u32)) -> std::result::Result<String, String> {
    if architectures.is_empty() {
        return Err(NO_KERNELS.into());
    }
    let rank = |architecture: &&&str| {
        let (kind, number) = architecture.split_once('_')?;
        let exact = number.ends_with('a');
        let number: u32 = number.trim_end_matches(['a', 'f']).parse().ok()?;
        let theirs = (number / 10, number % 10);
        let serves = match (kind, exact) {
            (_, true) => theirs == (major, minor),
            ("sm", false) => theirs.0 == major && theirs.1 <= minor,
            _ => theirs <= (major, minor),
        };
        serves.then_some((kind == "sm", number, exact))
    };
    let best = architectures.iter().filter(|architecture| rank(architecture).is_some()).max_by_key(rank);
    let none = || format!("compute capability {major}.{minor} is not among the kernels' {}", architectures.join(", "));
    best.map(|architecture| architecture.to_string()).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::{Compiled, best, choose};

    const ALL: [&str; 5] = ["sm_80", "sm_90a", "sm_100", "sm_120", "compute_80"];

    #[test]
    fn the_best_kernels_serve() {
        for (capability, kernels) in [
            ((8, 0), "sm_80"),
            ((8, 9), "sm_80"),
            ((9, 0), "sm_90a"),
            ((10, 0), "sm_100"),
            ((10, 3), "sm_100"),
            ((11, 0), "compute_80"),
            ((12, 1), "sm_120"),
        ] {
            assert_eq!(best(&ALL, capability).as_deref(), Ok(kernels), "{capability:?}");
        }
        assert!(best(&["sm_90a", "compute_90"], (8, 6)).is_err());
        assert!(best(&[], (8, 6)).is_err());
    }

    #[test]
    fn a_driver_is_as_new_as_its_kernels() {
        let least = |release, capability| {
            let compiled = Compiled { modules: &[], architectures: &ALL, release };
            let taken = |driver: &i32| choose(&compiled, capability, *driver).is_ok();
            (11_000..14_000).step_by(10).find(taken).unwrap()
        };
        // Machine code: any driver of the major version. PTX for 11.0: one that knows the compiler's.
        assert_eq!(least((12, 8), (9, 0)), 12_000);
        assert_eq!(least((12, 8), (11, 0)), 12_080);
        assert_eq!(least((13, 0), (9, 0)), 13_000);
        assert_eq!(least((13, 1), (9, 0)), 13_000);
        assert_eq!(least((13, 1), (11, 0)), 13_010);
    }
}
