//! A git repository as its owner has it: made from a directory of the checkout, pushed with the system's git.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::installation::{Installation, both, root};

/// A work tree with a remote named `berth`.
pub struct Repository {
    /// The app it is pushed to.
    pub app: String,
    /// The work tree.
    pub dir: PathBuf,
    token: String,
}

/// What a push said and whether git called it a success.
#[derive(Debug)]
pub struct Pushed {
    /// git's verdict.
    pub ok: bool,
    /// Everything printed, `remote:` lines included.
    pub text: String,
}

impl Repository {
    /// Creates the app and a repository with the files of `from` (relative to the checkout).
    #[track_caller]
    pub fn of_app(berth: &Installation, app: &str, from: &str) -> Self {
        berth.berth_ok(&["apps", "create", app]);
        let this = Self {
            app: app.to_owned(),
            dir: berth.data.join("repositories").join(app),
            token: berth.token.clone(),
        };
        copy(&root().join(from), &this.dir);
        this.git_ok(&["init", "-q", "-b", "main"]);
        this.git_ok(&["remote", "add", "berth", &format!("{}/git/{app}.git", berth.url)]);
        this.commit("First version");
        this
    }

    /// A git command in the work tree; the token reaches it through the environment only.
    pub fn git(&self, args: &[&str]) -> Command {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.dir);
        for setting in
            ["user.name=test", "user.email=test@localhost", "credential.helper=", "core.hooksPath=/dev/null"]
        {
            git.args(["-c", setting]);
        }
        git.args([
            "-c",
            "credential.helper=!f() { echo username=berth; echo \"password=$BERTH_TOKEN\"; }; f",
        ]);
        git.env("BERTH_TOKEN", &self.token).env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_NOSYSTEM", "1");
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").stdin(Stdio::null()).args(args);
        git
    }

    /// The same with another password.
    pub fn with_token(&self, token: &str) -> Self {
        Self { app: self.app.clone(), dir: self.dir.clone(), token: token.to_owned() }
    }

    /// Runs git, wants success, answers its standard output.
    #[track_caller]
    pub fn git_ok(&self, args: &[&str]) -> String {
        let output = self.git(args).output().unwrap_or_else(|e| panic!("git {args:?}: {e}"));
        assert!(output.status.success(), "git {args:?}: {}", both(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Writes a file of the work tree.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.dir.join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        made.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Commits everything and answers the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git_ok(&["add", "-A"]);
        self.git_ok(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git_ok(&["rev-parse", "HEAD"])
    }

    /// Pushes `main`.
    pub fn push(&self) -> Pushed {
        self.push_ref("main")
    }

    /// Pushes this refspec.
    pub fn push_ref(&self, refspec: &str) -> Pushed {
        let output =
            self.git(&["push", "berth", refspec]).output().unwrap_or_else(|e| panic!("git push: {e}"));
        Pushed { ok: output.status.success(), text: both(&output) }
    }

    /// Pushes `main` and wants it to end well.
    #[track_caller]
    pub fn push_ok(&self) -> String {
        let pushed = self.push();
        assert!(pushed.ok, "push of {}:\n{}", self.app, pushed.text);
        pushed.text
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())).flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap_or_else(|e| panic!("{}: {e}", target.display()));
        }
    }
}
