# Prints the version of the official runner program in $dir.
"$(home "$dir")/bin/Runner.Listener" --version 2>/dev/null | tail -n 1
