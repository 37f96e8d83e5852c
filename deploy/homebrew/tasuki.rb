# Builds Tasuki from its sources. Releases come as a cask, signed and notarised,
# which .goreleaser.yaml writes; this formula is for what is not released yet,
# and for Homebrew on Linux. In a tap of yours it lies below Formula/.
class Tasuki < Formula
  desc "GitHub Actions runners, each job in a fresh virtual machine of yours"
  homepage "https://github.com/mirego/tasuki"
  license "BSD-3-Clause"
  head "https://github.com/mirego/tasuki.git", branch: "main"

  depends_on "go" => :build

  def install
    ENV["CGO_ENABLED"] = "0"
    # -buildid must stay as it is: the Mach-O's LC_UUID is made of it, and macOS
    # keeps a program's permission for the local network by its UUID.
    ldflags = "-s -w -X github.com/mirego/tasuki/internal/cli.version=#{version}"
    system "go", "build", "-trimpath", *std_go_args(ldflags:), "./cmd/tasuki"
    generate_completions_from_executable(bin/"tasuki", "completion")
    system bin/"tasuki", "man", man1
  end

  def caveats
    on_macos do
      <<~EOS
        macOS guests run through tart:  brew install openai/tools/tart
        What this machine lacks:        tasuki doctor
        To keep runners from now on:    tasuki service install
      EOS
    end
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/tasuki version")
    (testpath/"bad.yaml").write "hots: {}\n"
    assert_match "unknown key", shell_output("#{bin}/tasuki config check bad.yaml 2>&1", 1)
  end
end
