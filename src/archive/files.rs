//! The files of the archive: written, and read back only as they were written.

use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use chrono::NaiveDate;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::manifest::{Manifest, Part, sha256};
use super::parquet::{decode, encode};
use crate::store::ClosedDay;
use crate::upkeep::compute;
use crate::usage::UsageEvent;
use crate::{Error, ErrorKind, Result};

/// Where old events are kept: a directory, or any object store. Each day has a folder with its Parquet files and a manifest.
///
/// ```
/// # fn main() -> metertrail::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let directory = directory.path();
/// use metertrail::archive::Archive;
///
/// let archive = Archive::local(directory)?;
/// # let _ = archive;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Archive {
    files: Arc<dyn ObjectStore>,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Archive({})", self.files)
    }
}

impl Archive {
    /// An archive in a directory, which is made if it is not there. Files are on disk before a day is dropped.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the directory cannot be made.
    pub fn local(directory: impl AsRef<FilePath>) -> Result<Self> {
        let directory = directory.as_ref();
        let unusable = || {
            Error::new(ErrorKind::Unavailable, format!("the archive cannot be in {}", directory.display()))
        };
        std::fs::create_dir_all(directory).map_err(|error| unusable().with_source(error))?;
        let files =
            LocalFileSystem::new_with_prefix(directory).map_err(|error| unusable().with_source(error))?;
        Ok(Self::new(Arc::new(files.with_fsync(true))))
    }

    /// An archive in an object store, which the host makes with its own settings; with a prefix, if need be, by
    /// `object_store::prefix::PrefixStore`.
    pub fn new(files: Arc<dyn ObjectStore>) -> Self {
        Self { files }
    }

    /// Writes some events as the next file of a manifest, reads the file back and compares it with them.
    pub(super) async fn write_part(
        &self,
        manifest: &mut Manifest,
        token: u64,
        events: Vec<UsageEvent>,
    ) -> Result<()> {
        let (events, file) = compute(move || encode(&events).map(|file| (events, file))).await?;
        let number = manifest.parts.len();
        let path = format!("{}/{token:012}-part-{number:05}.parquet", folder(manifest.day));
        manifest.add(path.clone(), &file, &events);
        self.put(&path, file).await?;
        let Some(part) = manifest.parts.last() else {
            return Ok(());
        };
        if self.read_part(part).await? != events {
            return Err(altered(&part.path, "has other events than were written"));
        }
        Ok(())
    }

    /// Writes a manifest behind its files; gives its text and that text's digest.
    pub(super) async fn write_manifest(&self, manifest: &Manifest, token: u64) -> Result<(String, String)> {
        let text = manifest.to_json()?;
        let path = format!("{}/{token:012}-manifest.json", folder(manifest.day));
        self.put(&path, text.clone().into_bytes()).await?;
        if self.get(&path).await? != text.as_bytes() {
            return Err(altered(&path, "is not what was written"));
        }
        let digest = sha256(text.as_bytes());
        Ok((text, digest))
    }

    /// The events of a file, if it is what the manifest says.
    pub(super) async fn read_part(&self, part: &Part) -> Result<Vec<UsageEvent>> {
        let file = self.get(&part.path).await?;
        let expected = part.clone();
        compute(move || {
            if u64::try_from(file.len()).ok() != Some(expected.bytes) || sha256(&file) != expected.sha256 {
                return Err(altered(&expected.path, "has another checksum than its manifest says"));
            }
            let events = decode(file)?;
            if u64::try_from(events.len()).ok() != Some(expected.events) {
                return Err(altered(&expected.path, "has another number of events than its manifest says"));
            }
            Ok(events)
        })
        .await
    }

    /// The newest manifest of a day that was written whole, if there is one.
    pub(super) async fn newest_manifest(&self, day: NaiveDate) -> Result<Option<Manifest>> {
        let mut paths = self.list(day).await?;
        paths.retain(|path| path.ends_with("-manifest.json"));
        let Some(newest) = paths.into_iter().max() else {
            return Ok(None);
        };
        let text = self.get(&newest).await?;
        // One that cannot be read is as good as none: the day is written anew.
        let manifest = std::str::from_utf8(&text).ok().and_then(|text| Manifest::from_json(text).ok());
        Ok(manifest.filter(|manifest| manifest.day == day))
    }

    /// Deletes what is in a day's folder and not of this manifest: what earlier attempts left.
    pub(super) async fn tidy(&self, manifest: &Manifest, manifest_sha256: &str) -> Result<()> {
        for path in self.list(manifest.day).await? {
            let is_part = manifest.parts.iter().any(|part| part.path == path);
            let is_manifest =
                path.ends_with("-manifest.json") && sha256(&self.get(&path).await?) == manifest_sha256;
            if !is_part && !is_manifest {
                self.files.delete(&Path::from(path.as_str())).await.map_err(unusable)?;
            }
        }
        Ok(())
    }

    async fn list(&self, day: NaiveDate) -> Result<Vec<String>> {
        let folder = Path::from(folder(day));
        let found: Vec<_> = self.files.list(Some(&folder)).try_collect().await.map_err(unusable)?;
        Ok(found.into_iter().map(|meta| meta.location.to_string()).collect())
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        self.files.put(&Path::from(path), bytes.into()).await.map_err(unusable)?;
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<Bytes> {
        let file = self.files.get(&Path::from(path)).await.map_err(unusable)?;
        file.bytes().await.map_err(unusable)
    }
}

/// The manifest of a closed day, if it has one; it must be the one whose digest the database has.
pub(super) fn manifest_of(closed: &ClosedDay) -> Result<Option<Manifest>> {
    let Some((text, digest)) = &closed.manifest else {
        return Ok(None);
    };
    if sha256(text.as_bytes()) != *digest {
        return Err(altered(&format!("the manifest of {}", closed.day), "has another checksum"));
    }
    Manifest::from_json(text).map(Some)
}

fn folder(day: NaiveDate) -> String {
    format!("usage/{day}")
}

pub(super) fn altered(what: &str, how: &str) -> Error {
    Error::new(ErrorKind::Store, format!("{what} {how}"))
}

fn unusable(error: object_store::Error) -> Error {
    let kind = if matches!(error, object_store::Error::NotFound { .. }) {
        ErrorKind::Store
    } else {
        ErrorKind::Unavailable
    };
    Error::new(kind, "the archive's files cannot be used").with_source(error)
}
