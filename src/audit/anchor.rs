//! Where checkpoints are kept outside of the database: what makes a trail that was cut back look shorter than it was.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::audit::Checkpoint;
use crate::{Error, ErrorKind, Result};

/// A place outside of the database that is told of every checkpoint: a file on another machine, an object store that keeps
/// what it was given, a web hook, a witness.
#[async_trait]
pub trait Anchor: fmt::Debug + Send + Sync + 'static {
    /// Keeps a checkpoint. It may be told the same one twice, and may miss some: each is good by itself.
    ///
    /// # Errors
    /// Whatever it meets. The log counts it and goes on; the next checkpoint says more than this one.
    async fn publish(&self, checkpoint: &Checkpoint) -> Result<()>;
}

/// A file to whose end checkpoints are written, a line of dashes behind each. It helps only where those who can change the
/// database cannot change the file.
#[derive(Clone, Debug)]
pub struct FileAnchor {
    path: PathBuf,
}

impl FileAnchor {
    /// The file of this path, made when it is first written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The checkpoints of a file, in its order.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the file cannot be read; [`InvalidInput`](ErrorKind::InvalidInput) on
    /// `checkpoint` if it holds something else.
    pub fn read(path: impl AsRef<Path>) -> Result<Vec<Checkpoint>> {
        let mut text = String::new();
        File::open(path).and_then(|mut file| file.read_to_string(&mut text)).map_err(unwritable)?;
        let notes = text.split(SEPARATOR).map(str::trim_start).filter(|note| !note.is_empty());
        notes.map(str::parse).collect()
    }
}

/// A line that is in no note: between two checkpoints.
const SEPARATOR: &str = "----\n";

#[async_trait]
impl Anchor for FileAnchor {
    // A short write to a local file: not worth a thread of its own.
    async fn publish(&self, checkpoint: &Checkpoint) -> Result<()> {
        let append = || {
            let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            file.write_all(format!("{checkpoint}{SEPARATOR}").as_bytes())?;
            file.sync_data()
        };
        append().map_err(unwritable)
    }
}

fn unwritable(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the anchor's file cannot be used").with_source(error)
}
