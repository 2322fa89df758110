//! Files that come from outside: weights, images, videos.

mod checkpoint;
mod images;
mod quantised;
mod suites;
mod video;
