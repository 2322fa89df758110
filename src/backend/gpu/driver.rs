//! The seam between the engine and what runs kernels: a GPU's driver, or the emulator. Memory, copies, launches and
//! nothing else; tests stand in here to make the n-th call fail.

pub use super::arguments::Address;
use super::arguments::{Kernel, KernelOf};
use crate::error::Result;

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// Its name, as its driver gives it.
    pub name: String,
    /// Multiprocessors; a cooperative launch has a block for each.
    pub multiprocessors: u32,
    /// Bytes of memory in all.
    pub memory_total: u64,
    /// Bytes that are free now.
    pub memory_free: u64,
    /// Most shared memory of one block, bytes.
    pub shared_bytes_max: u32,
    /// Whether there are cooperative launches, whose blocks can wait for each other; no more once one was refused.
    pub cooperative: bool,
    /// Whether each tensor gets an allocation of its own, so that a step past its end is seen.
    pub guarded: bool,
}

/// Largest struct of arguments, bytes.
pub const ARGUMENTS_BYTES_MAX: usize = 512;

/// The struct of arguments of one launch, as plain bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Arguments {
    bytes: [u8; ARGUMENTS_BYTES_MAX],
    size: usize,
}

impl Arguments {
    /// The bytes of `value`.
    pub fn new<A: bytemuck::NoUninit>(value: &A) -> Arguments {
        const { assert!(size_of::<A>() <= ARGUMENTS_BYTES_MAX, "a struct larger than any before") };
        let from = bytemuck::bytes_of(value);
        let mut bytes = [0; ARGUMENTS_BYTES_MAX];
        bytes[..from.len()].copy_from_slice(from);
        Arguments { bytes, size: from.len() }
    }

    /// The struct's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// One start of a kernel.
#[derive(Clone, PartialEq, Eq)]
pub struct Launch {
    /// The kernel; its name is that in the compiled module.
    pub kernel: Kernel,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// Whether blocks wait for each other, and so must all run together.
    pub cooperative: bool,
    /// What the kernel is told.
    pub arguments: Arguments,
}

/// A launch; none for an empty grid.
pub fn launch<A: bytemuck::NoUninit>(
    kernel: KernelOf<A>,
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    arguments: &A,
) -> Option<Launch> {
    let arguments = Arguments::new(arguments);
    let launch = Launch { kernel: kernel.kernel, grid, threads, shared_bytes, cooperative: false, arguments };
    (!grid.contains(&0)).then_some(launch)
}

/// A sequence of launches that the device keeps, to be started as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphHandle(pub usize);

/// Runs kernels. Calls take effect in order; only [`Driver::copy_out`] and [`Driver::synchronize`] wait. After an error
/// the device may be dead: every later call then fails too, and dropping the driver still frees what it holds.
pub trait Driver: Send {
    /// What the device is.
    fn properties(&self) -> &Properties;

    /// Takes memory, 256-byte aligned. Its content is undefined.
    ///
    /// # Errors
    /// Not enough memory: wanted and free.
    fn allocate(&mut self, bytes: u64) -> Result<Address>;

    /// Gives memory back.
    fn free(&mut self, address: Address);

    /// Copies to the device, before all launches that follow.
    fn copy_in(&mut self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Copies from the device, after all launches before it; waits.
    fn copy_out(&mut self, from: Address, bytes: &mut [u8]) -> Result<()>;

    /// Fills memory with zeros.
    fn clear(&mut self, address: Address, bytes: u64) -> Result<()>;

    /// Bytes of one staging buffer.
    fn staging_bytes(&self) -> usize;

    /// Uploads through staging memory: waits for a free buffer, lets `fill` write to it (it says how many bytes), and
    /// sends them off while the caller prepares the next. `synchronize` ends a series of uploads.
    fn upload(&mut self, to: Address, fill: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<()>;

    /// Whether the blocks of a cooperative launch fit the device all together, so that they can wait for each other.
    fn admits(&mut self, launch: &Launch) -> Result<bool>;

    /// Starts a kernel.
    ///
    /// # Errors
    /// A cooperative launch that the device refuses though it admits it; [`Properties::cooperative`] is false from then
    /// on.
    fn launch(&mut self, launch: &Launch) -> Result<()>;

    /// Keeps a sequence of launches to be replayed at less cost than launching them; none where the device cannot, now
    /// or ever: the launches themselves may still be started.
    fn capture(&mut self, launches: &[Launch]) -> Result<Option<GraphHandle>>;

    /// Starts a captured sequence. False where the device would not: then nothing was started.
    fn replay(&mut self, graph: GraphHandle) -> Result<bool>;

    /// Drops a captured sequence.
    fn drop_graph(&mut self, graph: GraphHandle);

    /// Starts a clock behind everything started so far.
    fn start_clock(&mut self) -> Result<()>;

    /// Waits for everything started since, and says how many seconds the device took for it.
    fn stop_clock(&mut self) -> Result<f64>;

    /// Waits for everything started so far.
    fn synchronize(&mut self) -> Result<()>;
}
