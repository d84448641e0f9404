//! Bare repositories, one per app, named by its id: made at the first request, and only ever touched through git
//! itself, in an environment that has nothing of the operator's.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use berth_wire::id::AppId;
use tokio::process::Command;
use uuid::Uuid;

use super::rules::DEPLOY_BRANCHES;
use crate::private;

/// The folder of repositories. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repositories {
    dir: Arc<Path>,
    pack_bytes_max: u64,
}

/// A deploy branch and the commit it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployRef {
    /// `main` or `master`.
    pub branch: String,
    /// The commit.
    pub commit: String,
}

impl Repositories {
    /// Opens (or makes) the folder. One push's pack may have at most `pack_bytes_max`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path, pack_bytes_max: u64) -> io::Result<Self> {
        for part in [dir.to_owned(), dir.join("hooks"), dir.join("home")] {
            private::dir(&part)?;
        }
        // Git runs elsewhere than we do: its paths must be absolute.
        Ok(Self { dir: std::path::absolute(dir)?.into(), pack_bytes_max })
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes `program` (this very binary) the hook of every repository.
    ///
    /// # Errors
    /// The links cannot be made.
    pub fn install_hooks(&self, program: &Path) -> io::Result<()> {
        for name in ["pre-receive", "post-receive"] {
            let link = self.dir.join("hooks").join(name);
            let temporary = self.dir.join("hooks").join(format!(".{name}.{}", Uuid::now_v7()));
            std::os::unix::fs::symlink(program, &temporary)?;
            std::fs::rename(&temporary, &link)?;
        }
        Ok(())
    }

    /// The folder's name of an app's repository.
    pub fn name(app: AppId) -> String {
        format!("{app}.git")
    }

    fn path(&self, app: AppId) -> PathBuf {
        self.dir.join(Self::name(app))
    }

    /// Whether the app has a repository.
    pub fn exists(&self, app: AppId) -> bool {
        self.path(app).exists()
    }

    /// Every app that has a repository.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn list(&self) -> io::Result<Vec<AppId>> {
        let names =
            std::fs::read_dir(&self.dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.strip_suffix(".git")?.parse().ok()).collect())
    }

    /// Git with a clean environment. Settings come from here and not from files, so that an upgrade changes them for
    /// every repository at once.
    pub fn git(&self) -> Command {
        let hooks = self.dir.join("hooks");
        let pack_bytes_max = self.pack_bytes_max.to_string();
        let settings: [(&str, &str); 8] = [
            // Our own folder: its owner may differ from us in a container or after a restore.
            ("safe.directory", "*"),
            ("core.hooksPath", &hooks.to_string_lossy()),
            ("http.receivepack", "true"),
            ("receive.maxInputSize", &pack_bytes_max),
            ("receive.denyDeletes", "false"),
            // CI systems push from shallow clones.
            ("receive.shallowUpdate", "true"),
            ("receive.advertisePushOptions", "false"),
            ("pack.windowMemory", "64m"),
        ];
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()))
            .env("HOME", self.dir.join("home"))
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_COUNT", settings.len().to_string())
            .current_dir(&*self.dir)
            .kill_on_drop(true);
        for (at, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        command
    }

    /// Makes the app's repository if it has none: whole, under its name, or not at all.
    ///
    /// # Errors
    /// Git is missing or failed.
    pub async fn ensure(&self, app: AppId) -> io::Result<()> {
        let path = self.path(app);
        if path.exists() {
            return Ok(());
        }
        let temporary = self.dir.join(format!(".new-{}", Uuid::now_v7()));
        let mut init = self.git();
        init.args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"]).arg(&temporary);
        checked(run(init).await?)?;
        // A tree is built as it is committed, whatever its .gitattributes say about archives.
        std::fs::create_dir_all(temporary.join("info"))?;
        std::fs::write(temporary.join("info/attributes"), "* -export-ignore -export-subst\n")?;
        private::dir(&temporary)?;
        match std::fs::rename(&temporary, &path) {
            // Somebody else was faster.
            Err(_) if path.exists() => std::fs::remove_dir_all(&temporary),
            other => other,
        }
    }

    /// Removes an app's repository; none is no error.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, app: AppId) -> io::Result<()> {
        match std::fs::remove_dir_all(self.path(app)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Quarantines of pushes (githooks(5), pre-receive) in the app's repository. A receive-pack that is ended by a signal
    /// leaves its own behind.
    ///
    /// # Errors
    /// The repository cannot be listed.
    pub fn quarantines(&self, app: AppId) -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.path(app).join("objects"))?.filter_map(Result::ok);
        let incoming =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("tmp_objdir-incoming-"));
        Ok(incoming.map(|entry| entry.path()).collect())
    }

    fn git_in(&self, app: AppId) -> Command {
        let mut command = self.git();
        command.arg("--git-dir").arg(self.path(app));
        command
    }

    /// The deploy branches there are.
    ///
    /// # Errors
    /// Git failed.
    pub async fn deploy_refs(&self, app: AppId) -> io::Result<Vec<DeployRef>> {
        let mut list = self.git_in(app);
        list.args(["for-each-ref", "--format=%(refname:lstrip=2) %(objectname)"]);
        list.args(DEPLOY_BRANCHES.map(|branch| format!("refs/heads/{branch}")));
        let output = checked(run(list).await?)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs.map(|(branch, commit)| DeployRef { branch: branch.into(), commit: commit.into() }).collect())
    }

    /// Whether the commit's own object is here.
    ///
    /// # Errors
    /// Git could not be run.
    pub async fn has_commit(&self, app: AppId, commit: &str) -> io::Result<bool> {
        let mut check = self.git_in(app);
        check.args(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
        Ok(run(check).await?.status.success())
    }

    /// Points a branch to a commit, or deletes it, if it still points to `old`.
    ///
    /// # Errors
    /// Git failed.
    pub async fn move_ref(&self, app: AppId, branch: &str, old: &str, new: Option<&str>) -> io::Result<()> {
        let name = format!("refs/heads/{branch}");
        let mut update = self.git_in(app);
        match new {
            Some(new) => update.args(["update-ref", &name, new, old]),
            None => update.args(["update-ref", "-d", &name, old]),
        };
        checked(run(update).await?).map(drop)
    }

    /// Makes a branch the one that a clone checks out.
    ///
    /// # Errors
    /// Git failed.
    pub async fn set_head(&self, app: AppId, branch: &str) -> io::Result<()> {
        let mut set = self.git_in(app);
        set.args(["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")]);
        checked(run(set).await?).map(drop)
    }
}

async fn run(mut command: Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).output().await.map_err(|error| {
        let why = if error.kind() == io::ErrorKind::NotFound { "install git" } else { "see the reason" };
        io::Error::new(error.kind(), format!("D15 could not run git ({error}); {why}"))
    })
}

fn checked(output: Output) -> io::Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("git failed ({}): {}", output.status, words.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_repository_must_be_made_once_and_have_no_branches() {
        let dir = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(dir.path(), 1 << 20).unwrap();
        let app = AppId(Uuid::from_u128(1));
        tokio::try_join!(repositories.ensure(app), repositories.ensure(app)).unwrap();
        repositories.ensure(app).await.unwrap();
        assert_eq!(repositories.list().unwrap(), [app]);
        assert!(repositories.deploy_refs(app).await.unwrap().is_empty());
        assert!(!repositories.has_commit(app, &"1".repeat(40)).await.unwrap());
        repositories.remove(app).unwrap();
        repositories.remove(app).unwrap();
    }
}
