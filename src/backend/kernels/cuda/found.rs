//! The GPUs of this machine, for `flamant devices`.

use super::context::{Context, Gpu};
use super::functions::Functions;
use super::{NO_KERNELS, unserved};
use crate::error::Result;

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
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

/// The GPUs of this machine. `architectures` are those that kernels are compiled for, as nvcc names them: "sm_80" and
/// "sm_90a" are machine code, "compute_120" can be compiled further by the driver.
///
/// # Errors
/// Why there is none: no driver, or one that is too old or sees no GPU.
pub fn devices(architectures: &[&str]) -> Result<Vec<Found>> {
    let cuda = Functions::get()?;
    (0..cuda.devices()?).map(|index| found(Gpu::new(cuda, index)?, architectures)).collect()
}

/// The number of the first GPU that our kernels serve. No GPU is woken for it.
pub fn first_usable(architectures: &[&str]) -> Option<usize> {
    let cuda = Functions::get().ok()?;
    let usable = |&index: &usize| {
        let capability = Gpu::new(cuda, index).and_then(|gpu| gpu.compute_capability());
        capability.is_ok_and(|capability| unserved(capability).is_none() && serving(architectures, capability).is_ok())
    };
    (0..cuda.devices().ok()?).find(usable)
}

fn found(gpu: Gpu, architectures: &[&str]) -> Result<Found> {
    let compute_capability = gpu.compute_capability()?;
    let memory_free = Context::retain(gpu).and_then(|context| context.memory());
    let kernels = match (unserved(compute_capability), &memory_free) {
        (Some(reason), _) => Err(reason),
        (None, Err(error)) => Err(error.to_string()),
        (None, Ok(_)) => serving(architectures, compute_capability),
    };
    Ok(Found {
        index: gpu.index,
        name: gpu.name()?,
        compute_capability,
        multiprocessors: gpu.multiprocessors()?,
        memory_total: gpu.memory()?,
        memory_free: memory_free.ok().map(|(free, _)| free),
        kernels,
    })
}

/// Which of `architectures` the driver takes for a GPU: machine code before what it must compile, the newest first.
fn serving(architectures: &[&str], (major, minor): (u32, u32)) -> std::result::Result<String, String> {
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
    use super::serving;

    #[test]
    fn the_best_kernels_serve() {
        let all = ["sm_80", "sm_90a", "sm_120", "compute_80"];
        let serving = |architectures, major, minor| serving(architectures, (major, minor)).ok();
        for (capability, best) in
            [((8, 0), "sm_80"), ((8, 9), "sm_80"), ((9, 0), "sm_90a"), ((10, 0), "compute_80"), ((12, 1), "sm_120")]
        {
            assert_eq!(serving(&all, capability.0, capability.1).as_deref(), Some(best), "{capability:?}");
        }
        assert_eq!(serving(&["sm_90a", "compute_90"], 8, 6), None);
        assert_eq!(serving(&[], 8, 6), None);
    }
}
