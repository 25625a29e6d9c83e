//! The command line: one file per command.

use std::fs;
use std::io::{self, Write};
use std::iter;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use clap::{CommandFactory, Parser, Subcommand};

use crate::api_server;

mod check;
mod completions;
mod crds;
mod explain;
mod host;
mod inject;
mod input;
mod lint;
mod no_proxy;
mod output;
mod route;
mod serve;

/// Exit code of a failed operation or bad input.
const FAILED: u8 = 1;
/// The same for commands whose 1 is an answer, and for wrong usage, as clap has it.
const BAD_INPUT: u8 = 2;

/// Fewer than this many things are no work for another thread.
const SMALLEST_SHARE: usize = 64;

/// The right HTTP proxy configuration for every workload of a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "reach", version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  reach serve --presets examples/presets             serve the webhook with presets from files
  reach inject -f deployment.yaml --presets presets  show a manifest as the webhook would change it
  reach explain -f deployment.yaml --presets presets say where each value comes from
  reach route https://web.corp.example/              say which clients go through the proxy, and why
  reach no-proxy -n shop                             print the list that a pod gets, with the origin of each entry
  reach lint -f deployment.yaml                      say what is wrong with proxy variables
  reach host patch -f cluster.yaml --presets presets give nodes of Cluster API the same proxy
  reach crds | kubectl apply -f -                    install the CRDs";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Arguments>),
    Inject(inject::Arguments),
    Explain(explain::Arguments),
    Route(route::Arguments),
    NoProxy(Box<no_proxy::Arguments>),
    Lint(lint::Arguments),
    Host(host::Arguments),
    Crds(crds::Arguments),
    Check(check::Arguments),
    Completions(completions::Arguments),
}

/// Form of the output of `reach explain` and `reach route`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For machines
    Json,
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// Lines for standard error, each a complete message.
    Messages(Vec<String>),
    /// What does not go together, as clap would say it.
    Usage(String),
    /// An error with its causes.
    Error(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Runs the command of this process and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    // kube and the server use the same provider; whoever comes first would else choose.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    let answers_with_1 = match &arguments.command {
        Command::Inject(inject) => inject.is_diff(),
        Command::Lint(_) => true,
        Command::Host(host) => host.answers_with_1(),
        _ => false,
    };
    let result = match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Inject(arguments) => inject::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Route(arguments) => route::run(&arguments),
        Command::NoProxy(arguments) => no_proxy::run(&arguments),
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Host(arguments) => host::run(&arguments),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, &mut Arguments::command()),
    };
    match result {
        Ok(code) => code,
        // Whoever reads the output has seen enough.
        Err(Failure::Error(error)) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(failure) => {
            // As in `kubectl diff`, 1 says that something differs, so failing has to be something else.
            let is_2 = answers_with_1 || matches!(failure, Failure::Usage(_));
            match failure {
                Failure::Messages(lines) => lines.iter().for_each(|line| complain(&format!("error: {line}"))),
                Failure::Usage(line) => complain(&format!("error: {line}")),
                Failure::Error(error) => complain(&format!("error: {}", explain_all(&error))),
            }
            ExitCode::from(if is_2 { BAD_INPUT } else { FAILED })
        }
    }
}

/// An error with its causes.
fn explain_all(error: &anyhow::Error) -> String {
    // Each context by itself, down to what the API server says, if it does.
    let is_api = |cause: &&(dyn std::error::Error + 'static)| cause.is::<kube::Error>();
    let Some(cause) = error.chain().find(is_api) else {
        return format!("{error:#}");
    };
    let context = error.chain().take_while(|cause| !is_api(cause)).map(|context| format!("{context}: "));
    context.chain([api_server::explain(cause)]).collect()
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes a result to standard output.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Replaces a file as a whole: whoever reads it sees the old text or the new one, also when this ends halfway. It keeps its
/// owner and its permissions, if it has some.
fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    write_whole_as(file, text, None)
}

/// [`write_whole`] with these permissions, before there is something in it that not everybody may read.
fn write_whole_as(file: &Path, text: &str, mode: Option<u32>) -> io::Result<()> {
    write_whole_for(file, text, mode, hand_over)
}

/// [`write_whole_as`], by way of what gives the new file to whom the old one belongs.
fn write_whole_for(
    file: &Path,
    text: &str,
    mode: Option<u32>,
    hand_over: impl FnOnce(&fs::File, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    // A pipe or a device is to be written to. In place of `/dev/null` there would be a file.
    if fs::metadata(file).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        return fs::write(file, text);
    }
    // A link stays one.
    let file = match fs::canonicalize(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
        found => found?,
    };
    let old = fs::metadata(&file).ok().filter(fs::Metadata::is_file);
    let (temporary, mut unfinished) = beside(&file)?;
    let mut is_needed = false;
    let written = (|| {
        // Before its permissions, which a change of owners may take away.
        let is_given = old.as_ref().is_none_or(|old| hand_over(&unfinished, old).is_ok());
        // One that would be somebody else's if it were replaced.
        let in_place = if is_given { None } else { Some(fs::OpenOptions::new().write(true).open(&file)?) };
        let permissions = match in_place {
            None => mode.map(fs::Permissions::from_mode).or(old.map(|old| old.permissions())),
            Some(_) => Some(fs::Permissions::from_mode(0o600)),
        };
        if let Some(permissions) = permissions {
            unfinished.set_permissions(permissions)?;
        }
        unfinished.write_all(text.as_bytes())?;
        unfinished.sync_all()?;
        let Some(in_place) = in_place else { return fs::rename(&temporary, &file) };
        // There is room for it; what goes wrong all the same loses nothing.
        overwrite(in_place, text, mode).map_err(|error| {
            is_needed = true;
            io::Error::new(error.kind(), format!("{error}; all of it is in {}", temporary.display()))
        })
    })();
    if !is_needed {
        // It has another name now, or the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Gives a new file the owner and the group of the one that it is to replace.
fn hand_over(new: &fs::File, old: &fs::Metadata) -> io::Result<()> {
    let own = new.metadata()?;
    if (own.uid(), own.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    fchown(new, Some(old.uid()), Some(old.gid()))
}

fn overwrite(mut file: fs::File, text: &str, mode: Option<u32>) -> io::Result<()> {
    if let Some(mode) = mode {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    file.set_len(0)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A new file in the folder of another one, under a name that nobody has.
fn beside(file: &Path) -> io::Result<(PathBuf, fs::File)> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut number = 0;
    loop {
        let temporary = file.with_file_name(format!(".{name}.reach-{}-{number}", std::process::id()));
        match fs::OpenOptions::new().write(true).create_new(true).open(&temporary) {
            // Left by somebody else, perhaps in another container with the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Ok(opened) => return Ok((temporary, opened)),
            Err(error) => {
                let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new(".")).display();
                let message = format!("no file can be made in its folder {folder}: {error}");
                return Err(io::Error::new(error.kind(), message));
            }
        }
    }
}

/// Works on many things, in order; each is gone once its work is done. Reading and editing text is what takes time, so many are
/// shared out among threads.
fn shared_out<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(threads).max(SMALLEST_SHARE);
    let work = &work;
    let mut items = items.into_iter();
    let parts = iter::from_fn(|| {
        Some(items.by_ref().take(share).collect::<Vec<T>>()).filter(|part| !part.is_empty())
    });
    thread::scope(|scope| {
        let parts: Vec<_> =
            parts.map(|part| scope.spawn(move || part.into_iter().map(work).collect::<Vec<R>>())).collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Writes a line to standard error.
fn complain(line: &str) {
    // Nothing is left to say it to when standard error is closed.
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_written_to_and_stays() {
        use std::io::Read as _;
        use std::os::unix::fs::FileTypeExt as _;

        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Both ends at once, so that nobody waits for the other one.
        let mut end = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        write_whole_as(&pipe, "text", Some(0o600)).unwrap();
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        let mut text = [0; 4];
        end.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"text");
    }

    #[test]
    fn a_file_that_is_replaced_stays_whose_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pod.yaml");
        fs::write(&file, "a longer text").unwrap();
        // Only root can give a file away; those of others are replaced by their own.
        let is_given = std::os::unix::fs::chown(&file, Some(12345), Some(23456)).is_ok();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let old = fs::metadata(&file).unwrap();
        assert!(!is_given || (old.uid(), old.gid()) == (12345, 23456));
        let whose = |metadata: &fs::Metadata| (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        let mut inode = old.ino();
        for mode in [None, Some(0o600)] {
            write_whole_as(&file, "text", mode).unwrap();
            let new = fs::metadata(&file).unwrap();
            assert_eq!(whose(&new), (old.uid(), old.gid(), mode.unwrap_or(0o640)));
            assert_ne!(new.ino(), inode, "it is another file");
            inode = new.ino();
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_could_not_be_given_back_is_written_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pod.yaml");
        fs::write(&file, "a longer text").unwrap();
        let old = fs::metadata(&file).unwrap();
        let refuse = |_: &fs::File, _: &fs::Metadata| Err(io::ErrorKind::PermissionDenied.into());
        for mode in [None, Some(0o600)] {
            write_whole_for(&file, "text", mode, refuse).unwrap();
            let new = fs::metadata(&file).unwrap();
            assert_eq!((new.ino(), new.mode() & 0o777), (old.ino(), mode.unwrap_or(old.mode() & 0o777)));
            assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
        // There is nobody to give a new file back to.
        write_whole_for(&folder.path().join("new"), "text", None, refuse).unwrap();
    }

    #[test]
    fn a_file_is_written_as_a_whole_and_what_others_left_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let foreign = folder.path().join(format!(".ca.pem.reach-{}-0", std::process::id()));
        fs::write(&foreign, "foreign").unwrap();
        for text in ["one", "two"] {
            write_whole(&file, text).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(&foreign).unwrap(), "foreign");
        // A folder cannot be replaced by a file, and nothing is left of the attempt.
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write_whole(&folder.path().join("taken"), "three").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
