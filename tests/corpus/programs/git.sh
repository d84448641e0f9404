# A repository with history, cloned locally (hard links) and through the protocol, packed by threads, and checked.
set -eu
export HOME=/app
git config --global user.name corpus
git config --global user.email corpus@example.com
git config --global init.defaultBranch main
mkdir /app/origin
cd /app/origin
git init -q
for number in $(seq 20); do
    seq "$((number * 100))" >"file-$((number % 5))"
    git add .
    git commit -qm "change $number"
done
git clone -q /app/origin /app/local
git clone -q --bare file:///app/origin /app/bare.git
cd /app/local
git checkout -q -b side
echo more >>file-1
git commit -qam side
git push -q /app/bare.git side
git -C /app/bare.git -c pack.threads=4 repack -q -a -d
git -C /app/bare.git fsck --strict 2>&1
git -C /app/bare.git log --oneline side | wc -l
echo "git: all done as $(id -u)"
