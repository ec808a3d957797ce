//! The mapping files, read on a thread of their own. A folder that hangs holds up nothing but the next set; and what a large set
//! needs while it is parsed is there again for the next one, where each of many threads would keep as much.

use std::sync::mpsc::{self, TrySendError};
use std::time::Duration;

use onespace_core::load::LoadedSet;
use onespace_core::loader::Loader;
use tokio::sync::oneshot;

use crate::files::{FilesError, Folders};

/// A set that is new; none if the index is the one of the last good set.
type Answer = Result<Option<LoadedSet>, FilesError>;

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the folders.
#[derive(Debug)]
pub struct Reading {
    folders: Folders,
    asks: Option<mpsc::SyncSender<Ask>>,
}

#[derive(Debug)]
struct Ask {
    /// Also if the index is the one of the last good set: it was another one meanwhile, and is good again.
    anew: bool,
    answer: oneshot::Sender<Answer>,
}

impl Reading {
    /// Of these folders.
    #[must_use]
    pub const fn new(folders: Folders) -> Self {
        Self { folders, asks: None }
    }

    /// The set that is there now, if its index is another than that of the last good one, or if it is wanted `anew`.
    ///
    /// # Errors
    /// It cannot be read, or is not whole: the last good one stays.
    pub async fn next(&mut self, anew: bool) -> Answer {
        let (answer, answered) = oneshot::channel();
        let asks = match &self.asks {
            Some(asks) => asks,
            None => self.asks.insert(start(self.folders.clone())?),
        };
        match asks.try_send(Ask { anew, answer }) {
            Ok(()) => {}
            // The one before still hangs.
            Err(TrySendError::Full(_)) => return Err(FilesError::Hangs),
            Err(TrySendError::Disconnected(_)) => return self.interrupted(),
        }
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => self.interrupted(),
            Err(_) => Err(FilesError::Hangs),
        }
    }

    /// The next question starts another thread.
    fn interrupted(&mut self) -> Answer {
        self.asks = None;
        Err(FilesError::Interrupted)
    }
}

fn start(folders: Folders) -> Result<mpsc::SyncSender<Ask>, FilesError> {
    let (sender, asks) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("mapping-files".to_owned());
    let started = thread.spawn(move || serve(&folders, &asks));
    started.map_err(|error| FilesError::NoThread {
        cause: error.to_string(),
    })?;
    Ok(sender)
}

fn serve(folders: &Folders, asks: &mpsc::Receiver<Ask>) {
    let mut loader = Loader::default();
    let mut last: Option<Vec<u8>> = None;
    for Ask { anew, answer } in asks {
        let set = folders.index().and_then(|index| {
            if last.as_ref() == Some(&index) && !anew {
                return Ok(None);
            }
            let set = folders.load(index.clone(), &mut loader)?;
            last = Some(index);
            Ok(Some(set))
        });
        // Who asked waits no more, and has not taken it up.
        if answer.send(set).is_err() {
            last = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_broke_off_is_said_to_have_and_another_one_reads_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut reading = Reading::new(Folders {
            mappings: folder.path().to_owned(),
            credentials: folder.path().to_owned(),
        });
        let (gone, _) = mpsc::sync_channel(1);
        reading.asks = Some(gone);
        assert_eq!(reading.next(false).await.unwrap_err(), FilesError::Interrupted);
        let error = reading.next(false).await.unwrap_err();
        assert!(error.to_string().contains("index.json"), "{error}");
    }

    #[test]
    fn a_set_that_nobody_took_is_read_again() {
        use onespace_core::load::Files;
        use onespace_core::mapping::Mapping;
        let folder = tempfile::tempdir().unwrap();
        let set = onespace_core::shard::fold::<Mapping>(&[], &Default::default(), &Files::default(), "1");
        std::fs::write(folder.path().join("index.json"), set.unwrap().index).unwrap();
        let folders = Folders {
            mappings: folder.path().to_owned(),
            credentials: folder.path().to_owned(),
        };
        let (sender, asks) = mpsc::sync_channel(3);
        let mut answers = Vec::new();
        for _ in 0..3 {
            let (answer, answered) = oneshot::channel();
            sender.send(Ask { anew: false, answer }).unwrap();
            answers.push(answered);
        }
        drop(sender);
        drop(answers.remove(0));
        serve(&folders, &asks);
        let mut taken = answers
            .into_iter()
            .map(|mut answer| answer.try_recv().unwrap().unwrap());
        assert!(
            taken.next().unwrap().is_some(),
            "the first of them was never applied"
        );
        assert!(taken.next().unwrap().is_none());
    }
}
