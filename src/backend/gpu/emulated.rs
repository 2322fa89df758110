//! The emulator as a driver: the kernels' own sources, compiled for the processor (`kernels/emulator.h`). Its memory is
//! guarded: every tensor stands alone between red zones, poisoned until it is written.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::driver::{Address, Driver, GraphHandle, Launch, Properties};
use crate::error::{Error, Result};

/// Multiprocessors that are claimed: few and odd, so that work is spread unevenly.
const MULTIPROCESSORS: u32 = 3;
/// What the smallest supported GPU gives one block.
const SHARED_BYTES_MAX: u32 = 99 * 1024;
/// Memory that is claimed.
const MEMORY_BYTES: u64 = 16 << 30;
const STAGING_BYTES: usize = 1 << 20;

/// How blocks' threads take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// In order, fast.
    #[default]
    Plain,
    /// One random warp runs until all its lanes wait, then another.
    Warps,
    /// Lanes of all warps shuffled.
    Lanes,
}

/// How a library that runs compiled kernels adds products of matrices (`kernels/interpreter/matrix_units.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatrixUnits {
    /// In f32, one after the other: the emulator's way, and its only one.
    #[default]
    Plain,
    /// As the units of compute capability 9.0 are modelled.
    Hopper,
    /// As those of 8.x are modelled.
    Ampere,
}

/// What the emulator does besides running kernels.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How threads take turns.
    pub schedule: Schedule,
    /// Seed of random turns.
    pub seed: u64,
    /// Asynchronous copies land at once instead of as late as they may.
    pub early_copies: bool,
    /// Races and uninitialised reads of shared memory end a launch.
    pub checked: bool,
    /// Threads of the processor; 0: one for each core.
    pub workers: u32,
    /// A device whose blocks cannot wait for each other: no cooperative launches.
    pub without_cooperative: bool,
    /// Counters of each launch are added here.
    pub counted: Option<Tally>,
    /// Another build of the emulator and the kernels, or the interpreter of compiled ones, as a shared library.
    pub library: Option<PathBuf>,
    /// How products of matrices are added.
    pub matrix_units: MatrixUnits,
    /// Shared memory of a block, bytes, that it claims to have: kinds of devices are told apart by it, and forms of
    /// kernels chosen. None: what the smallest has.
    pub shared_bytes: Option<u32>,
}

/// Kernels that were started, each with what it did.
pub type Tally = Arc<Mutex<Vec<(&'static str, Counters)>>>;

/// What one launch did; the fields of `EmulatorCounters`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented in kernels/emulator.h")]
#[repr(C)]
pub struct Counters {
    pub matrix_products: u64,
    pub warp_collectives: u64,
    pub block_barriers: u64,
    pub atomics: u64,
    pub global_load_bytes: u64,
    pub global_store_bytes: u64,
    pub global_sectors: u64,
    pub global_sectors_ideal: u64,
    pub shared_accesses: u64,
    pub shared_wavefronts: u64,
    pub shared_wavefronts_ideal: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct RawOptions {
    seed: u64,
    schedule: u32,
    early_copies: u32,
    check_races: u32,
    check_uninitialised: u32,
    count: u32,
    workers: u32,
    matrix_units: u32,
}

type Allocate = unsafe extern "C" fn(usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void) -> c_int;
type Find = unsafe extern "C" fn(*const c_char, *mut usize, *mut u32) -> c_int;
type LaunchKernel = unsafe extern "C" fn(
    *const c_char,
    *const u32,
    u32,
    usize,
    c_int,
    *const c_void,
    *const RawOptions,
    *mut Counters,
    *mut c_char,
    usize,
) -> c_int;

mod linked {
    use super::{Allocate, Find, Free, LaunchKernel};
    use std::ffi::{c_char, c_int, c_void};

    // SAFETY: the library is compiled from kernels/emulator.cpp, which defines them so.
    unsafe extern "C" {
        fn flamant_emulator_allocate(bytes: usize) -> *mut c_void;
        fn flamant_emulator_free(memory: *mut c_void) -> c_int;
        fn flamant_emulator_find(name: *const c_char, arguments_size: *mut usize, threads: *mut u32) -> c_int;
        fn flamant_emulator_launch(
            name: *const c_char,
            grid: *const u32,
            threads: u32,
            shared_bytes: usize,
            cooperative: c_int,
            arguments: *const c_void,
            options: *const super::RawOptions,
            counters: *mut super::Counters,
            message: *mut c_char,
            message_size: usize,
        ) -> c_int;
    }

    pub const ALLOCATE: Allocate = flamant_emulator_allocate;
    pub const FREE: Free = flamant_emulator_free;
    pub const FIND: Find = flamant_emulator_find;
    pub const LAUNCH: LaunchKernel = flamant_emulator_launch;
}

/// The emulator's functions: those in this program, or those of a shared library.
struct Functions {
    allocate: Allocate,
    free: Free,
    find: Find,
    launch: LaunchKernel,
    /// Keeps the library in memory.
    _library: Option<libloading::Library>,
}

impl Functions {
    fn linked() -> Functions {
        Functions {
            allocate: linked::ALLOCATE,
            free: linked::FREE,
            find: linked::FIND,
            launch: linked::LAUNCH,
            _library: None,
        }
    }

    fn load(path: &Path) -> Result<Functions> {
        let wrong = |error: libloading::Error| Error::file(path, error);
        // SAFETY: the library was built by our own tests from kernels/; its constructors only fill a table.
        let library = unsafe { libloading::Library::new(path) }.map_err(wrong)?;
        // SAFETY: the symbols are those of kernels/emulator.h, with these types.
        let (allocate, free, find, launch) = unsafe {
            (
                *library.get(b"flamant_emulator_allocate\0").map_err(wrong)?,
                *library.get(b"flamant_emulator_free\0").map_err(wrong)?,
                *library.get(b"flamant_emulator_find\0").map_err(wrong)?,
                *library.get(b"flamant_emulator_launch\0").map_err(wrong)?,
            )
        };
        Ok(Functions { allocate, free, find, launch, _library: Some(library) })
    }
}

/// The emulator.
pub struct Emulator {
    properties: Properties,
    settings: Settings,
    functions: Functions,
    allocated: Vec<Address>,
    staging: Vec<u8>,
    graph: Vec<Option<Vec<Launch>>>,
    clock: Instant,
}

impl Emulator {
    /// With these settings.
    ///
    /// # Errors
    /// A library that cannot be loaded.
    pub fn open(settings: Settings) -> Result<Emulator> {
        let functions = match &settings.library {
            Some(path) => Functions::load(path)?,
            None => Functions::linked(),
        };
        let properties = Properties {
            name: "emulator".to_owned(),
            multiprocessors: MULTIPROCESSORS,
            memory_total: MEMORY_BYTES,
            memory_free: MEMORY_BYTES,
            shared_bytes_max: settings.shared_bytes.unwrap_or(SHARED_BYTES_MAX),
            cooperative: !settings.without_cooperative,
            guarded: true,
        };
        Ok(Emulator {
            properties,
            settings,
            functions,
            allocated: Vec::new(),
            staging: vec![0; STAGING_BYTES],
            graph: Vec::new(),
            clock: Instant::now(),
        })
    }

    fn fault(&self, message: impl std::fmt::Display) -> Error {
        Error::device("emulated", message)
    }

    /// The kernel's struct of arguments has the size that is passed. A launch of a kernel that is not there says so.
    fn check(&self, launch: &Launch, name: &CStr) {
        let (mut size, mut threads) = (0, 0);
        // SAFETY: the name ends with zero; both results are written before it returns 0.
        let missing = unsafe { (self.functions.find)(name.as_ptr(), &mut size, &mut threads) };
        if missing == 0 {
            let given = launch.arguments.bytes().len();
            assert_eq!(given, size, "{}: build/header.rs and the compiler differ", launch.kernel);
            assert!(launch.threads <= threads, "{}: {} threads of {threads}", launch.kernel, launch.threads);
        }
    }
}

impl Driver for Emulator {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address> {
        let size = usize::try_from(bytes).map_err(|_| Error::limit("bytes of memory", MEMORY_BYTES, bytes))?;
        // SAFETY: any size may be asked for.
        let memory = unsafe { (self.functions.allocate)(size) };
        if memory.is_null() {
            return Err(self.fault(format!("expected {bytes} bytes of memory, found less")));
        }
        let address = Address(memory as u64);
        self.allocated.push(address);
        Ok(address)
    }

    fn free(&mut self, address: Address) {
        self.allocated.retain(|other| *other != address);
        // SAFETY: the address came from `allocate` and is given back once.
        let damaged = unsafe { (self.functions.free)(address.0 as *mut c_void) };
        assert_eq!(damaged, 0, "memory was given back once, and nothing wrote beside it");
    }

    fn copy_in(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        // SAFETY: the caller allocated at least so many bytes there, apart from any memory of Rust's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) };
        Ok(())
    }

    fn copy_out(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the caller allocated at least so many bytes there, apart from any memory of Rust's.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn clear(&mut self, address: Address, bytes: u64) -> Result<()> {
        // SAFETY: the caller allocated at least so many bytes there.
        unsafe { std::ptr::write_bytes(address.0 as *mut u8, 0, bytes as usize) };
        Ok(())
    }

    fn staging_bytes(&self) -> usize {
        self.staging.len()
    }

    fn upload(&mut self, to: Address, fill: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<()> {
        let mut staging = std::mem::take(&mut self.staging);
        let filled = fill(&mut staging).and_then(|bytes| self.copy_in(to, &staging[..bytes]));
        self.staging = staging;
        filled
    }

    fn admits(&mut self, _: &Launch) -> Result<bool> {
        Ok(self.properties.cooperative)
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        if launch.cooperative && !self.properties.cooperative {
            return Err(self.fault(format!("kernel {}: a cooperative launch on a device without", launch.kernel)));
        }
        let name = CString::new(launch.kernel.name()).expect("kernels' names hold no zero");
        self.check(launch, &name);
        let Settings { schedule, seed, early_copies, checked, workers, counted, matrix_units, .. } = &self.settings;
        let options = RawOptions {
            seed: *seed,
            schedule: *schedule as u32,
            early_copies: u32::from(*early_copies),
            check_races: u32::from(*checked),
            check_uninitialised: u32::from(*checked),
            count: u32::from(counted.is_some()),
            workers: *workers,
            matrix_units: *matrix_units as u32,
        };
        let mut counters = Counters::default();
        let mut message = [0 as c_char; 512];
        // SAFETY: the name ends with zero, the arguments have the kernel's size (checked above), and the message's size
        // is given. What the arguments point to is memory of this emulator, which checks each access.
        let failed = unsafe {
            (self.functions.launch)(
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.threads,
                launch.shared_bytes as usize,
                c_int::from(launch.cooperative),
                launch.arguments.bytes().as_ptr().cast(),
                &options,
                &mut counters,
                message.as_mut_ptr(),
                message.len(),
            )
        };
        if failed != 0 {
            // SAFETY: a launch that failed has left one line that ends with zero.
            let message = unsafe { CStr::from_ptr(message.as_ptr()) };
            return Err(self.fault(message.to_string_lossy()));
        }
        if let Some(counted) = counted {
            let mut counted = counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            counted.push((launch.kernel.name(), counters));
        }
        Ok(())
    }

    fn capture(&mut self, launches: &[Launch]) -> Result<Option<GraphHandle>> {
        self.graph.push(Some(launches.to_vec()));
        Ok(Some(GraphHandle(self.graph.len() - 1)))
    }

    fn replay(&mut self, graph: GraphHandle) -> Result<bool> {
        let launches = self.graph[graph.0].take().expect("a captured sequence is replayed before it is dropped");
        let done = launches.iter().try_for_each(|launch| self.launch(launch));
        self.graph[graph.0] = Some(launches);
        done.map(|()| true)
    }

    fn drop_graph(&mut self, graph: GraphHandle) {
        self.graph[graph.0] = None;
    }

    fn start_clock(&mut self) -> Result<()> {
        self.clock = Instant::now();
        Ok(())
    }

    fn stop_clock(&mut self) -> Result<f64> {
        Ok(self.clock.elapsed().as_secs_f64())
    }

    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        for address in std::mem::take(&mut self.allocated) {
            // SAFETY: the address came from `allocate` and is given back once.
            unsafe { (self.functions.free)(address.0 as *mut c_void) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arguments::Kernel;
    use super::*;

    #[test]
    fn kernels_and_their_arguments_are_the_compilers() {
        // SAFETY: as above.
        unsafe extern "C" {
            safe fn flamant_emulator_kernels() -> usize;
        }
        let emulator = Emulator::open(Settings::default()).unwrap();
        for kernel in Kernel::ALL {
            let name = CString::new(kernel.name()).unwrap();
            let (mut size, mut threads) = (0, 0);
            // SAFETY: the name ends with zero; both results are written before it returns 0.
            assert_eq!(unsafe { (emulator.functions.find)(name.as_ptr(), &mut size, &mut threads) }, 0, "{kernel}");
            assert_eq!(kernel.arguments_bytes(), size, "{kernel}");
        }
        assert_eq!(Kernel::ALL.len(), flamant_emulator_kernels());
    }
}
