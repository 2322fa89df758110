//! Files that come from outside: weights, images, videos.

mod checkpoint;
mod images;
mod quantised;
mod quantize;
mod suites;
mod video;
