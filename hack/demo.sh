#!/usr/bin/env bash
# Plays the story with real programs and real git: a secret travels from a
# developer's terminal through git into a workload, and nothing on the way can
# be read. Fails if any step does. `make demo` builds what it runs.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH="$PWD/bin:$PATH"
age=$(go tool -n age)

world=$(mktemp -d "${TMPDIR:-/tmp}/vsecm-demo.XXXXXX")
safe_pid=
finish() {
	if [[ -n $safe_pid ]]; then
		kill "$safe_pid" 2>/dev/null || true
		wait "$safe_pid" || true
	fi
	rm -rf "$world"
}
trap finish EXIT
cp "$age" "$world/age"
cd "$world"

# Nothing of the user's own settings may decide how the story goes.
export KUBECONFIG=/dev/null GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=Dev GIT_AUTHOR_EMAIL=dev@example.com
export GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL

if [[ -t 1 ]]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi

chapter() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
fail() {
	printf 'error: %s\n' "$*" >&2
	[[ ! -e safe.log ]] || tail -n 20 safe.log >&2
	exit 1
}

# run shows a command line and what it prints, with the long recipients and sealed
# values cut short, and fails with it.
run() {
	printf '\n$ %s\n' "$1"
	bash -o pipefail -c "$1" 2>&1 | sed -E 's/(age1pq1|YWdlLWVuY3J5cHRp)[A-Za-z0-9+\/=]{60,}/\1…/'
}

# refused is run for what has to fail.
refused() {
	if run "$1"; then fail "this should have been refused"; fi
}

now() { date +%s%N; }

# delivered waits until the workload gets a line, and says how long after the push that was.
delivered() {
	local pushed=$1 want=$2 deadline=$((SECONDS + 30))
	until safe fetch -o env 2>/dev/null | grep -qxF "$want"; do
		[[ $SECONDS -lt $deadline ]] || fail "the workload never got $want"
	done
	printf '\n=> delivered %d ms after the push, the time of the fetch included\n' $((($(now) - pushed) / 1000000))
	run 'safe fetch -o env'
}

# reported waits until the operator's status shows something.
reported() {
	local deadline=$((SECONDS + 30))
	until grep -qF "$1" <(kubectl-vsecm status 2>/dev/null); do
		[[ $SECONDS -lt $deadline ]] || fail "the status never showed $1"
	done
}

chapter 'An operator makes a root key, and starts Safe with it'
run 'kubectl-vsecm keygen -o root-key.txt'
printf '\n$ safe dev --root-key root-key.txt --dir world &\n'
safe dev --root-key root-key.txt --dir world --verbose >safe.log 2>&1 &
safe_pid=$!
for _ in $(seq 300); do
	[[ ! -e world/env ]] || break
	kill -0 "$safe_pid" 2>/dev/null || fail 'Safe did not start'
	sleep 0.1
done
# shellcheck disable=SC1091 # written by safe dev
source world/env
unset VSECM_RECIPIENTS # the repository's .vsecm.yaml is to name them

chapter 'The team agrees on whom to encrypt to'
run "git clone -q '$VSECM_REPOSITORY' shop 2>/dev/null && ls -a shop"
cd shop
git checkout -q -B main
cat >.vsecm.yaml <<-YAML
	rules:
	  - path: "**"
	    recipients: [$(kubectl-vsecm recipient --root-key ../root-key.txt)]
	    namespace: shop
	    forbidPlaintext: true
YAML
run 'cat .vsecm.yaml'

chapter 'A developer encrypts with that public key alone, commits and pushes'
run "printf %s 'correct horse battery staple' | kubectl-vsecm encrypt db --key password -w db.yaml"
run 'cat db.yaml'
run 'kubectl-vsecm inspect db.yaml'
run 'git add . && git commit -qm "Add the password of the database"'
pushed=$(now)
run 'git push -q -u origin main 2>&1'
delivered "$pushed" "DB_PASSWORD='correct horse battery staple'"

chapter 'The value changes: one line of the file does'
before=$(sha256sum <db.yaml)
run "printf %s 'tr0ub4dor&3' | kubectl-vsecm encrypt db --key password -w db.yaml"
[[ $before != "$(sha256sum <db.yaml)" ]] || fail 'the file did not change'
run 'git diff --stat'
git commit -qam 'Change the password'
pushed=$(now)
run 'git push -q 2>&1'
delivered "$pushed" "DB_PASSWORD='tr0ub4dor&3'"

chapter 'Somebody copies the ciphertext to a workload of theirs: it is refused'
sed 's/name: db/name: thief/' db.yaml >thief.yaml
refused 'kubectl-vsecm validate thief.yaml'
git add . && git commit -qm 'Nothing to see here'
run 'git push -q 2>&1'
reported thief.yaml
refused 'kubectl-vsecm status'

chapter 'Somebody breaks a manifest: its last good version stays, and others are served'
git rm -qf thief.yaml
echo '  encryptedData: {' >>db.yaml
run "printf %s 'a-token-for-replicas' | kubectl-vsecm encrypt db-replica --key token --workload db -w replica.yaml"
git add . && git commit -qm 'Break db.yaml, add replica.yaml'
pushed=$(now)
run 'git push -q 2>&1'
delivered "$pushed" "DB_REPLICA_TOKEN='a-token-for-replicas'"
reported db.yaml
refused 'kubectl-vsecm status'
safe fetch -o env | grep -qxF "DB_PASSWORD='tr0ub4dor&3'" || fail 'the last good version is gone'

chapter 'It is repaired'
git checkout -q HEAD~1 -- db.yaml
git commit -qm 'Repair db.yaml'
run 'git push -q 2>&1'
deadline=$((SECONDS + 30))
until kubectl-vsecm status >/dev/null 2>&1; do
	[[ $SECONDS -lt $deadline ]] || fail 'the faults did not clear'
done
run 'kubectl-vsecm status'

chapter 'Nobody depends on this software to read what they encrypted'
head -n 1 ../root-key.txt >../identity.txt
run "sed -n 's/^ *password: //p' db.yaml | base64 -d | ../age -d -i ../identity.txt && echo"

chapter 'And nothing on the way can be read'
cd ..
for value in 'correct horse battery staple' 'tr0ub4dor&3' 'a-token-for-replicas'; do
	for form in "$value" "$(printf %s "$value" | base64 -w 0)" "$(printf %s "$value" | od -An -tx1 | tr -d ' \n')"; do
		if grep -rqF -- "$form" world/data world/repository.git shop safe.log; then
			fail "a value can be read in $(grep -rlF -- "$form" world/data world/repository.git shop safe.log)"
		fi
	done
done
echo
echo "=> searched the working copy, the repository, Safe's data and its logs for every value, raw, base64 and hex: not there"

kill "$safe_pid"
wait "$safe_pid" || fail 'Safe did not stop cleanly'
safe_pid=
printf '\nEverything went as told.\n'
