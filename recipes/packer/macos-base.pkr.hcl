# The base of macOS images: macOS of an IPSW, through the setup assistant, with an
# administrator, remote login and sudo without a password. Packer types what the
# assistant asks for, which nothing else can answer before macOS 27.
#
#   packer init recipes/packer/macos-base.pkr.hcl
#   packer build -var macos=15 -var ipsw=UniversalMac_15.6.1_Restore.ipsw recipes/packer/macos-base.pkr.hcl
#   tart push macos-15-base registry.example.com/macos/base:15
#
# Then: tasuki image build recipes/macos-runner.yaml --var BASE=registry.example.com/macos/base:15
#
# It has never run on a Mac. Where the assistant of your release asks otherwise, watch it (headless = false)
# and change what is typed.

packer {
  required_plugins {
    tart = {
      version = ">= 1.14.0"
      source  = "github.com/cirruslabs/tart"
    }
  }
}

variable "macos" {
  type        = string
  description = "15 (Sequoia) or 26 (Tahoe): they ask different things."
  validation {
    condition     = contains(["15", "26"], var.macos)
    error_message = "Write 15 or 26."
  }
}

variable "ipsw" {
  type        = string
  description = "A restore image of that release: a file or a URL."
}

variable "name" {
  type    = string
  default = ""
}

variable "user" {
  type    = string
  default = "admin"
}

variable "password" {
  type      = string
  default   = "admin"
  sensitive = true
}

variable "disk_gb" {
  type    = number
  default = 60
}

variable "headless" {
  type    = bool
  default = true
}

locals {
  name = var.name != "" ? var.name : "macos-${var.macos}-base"

  # To the screen with the account: language, country, no accessibility, no migration.
  to_account = {
    "15" = [
      "<wait60s><spacebar>",
      "<wait30s>italiano<esc>english<enter>",
      "<wait30s>united states<leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><spacebar>",
    ]
    "26" = [
      "<wait60s><enter>",
      "<wait30s>italiano<esc>english<enter>",
      "<wait60s>united states<leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><tab><tab><spacebar><tab><tab><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><leftShiftOn><tab><leftShiftOff><spacebar>",
    ]
  }

  account = [
    "<wait10s>${var.user}<tab>${var.user}<tab>${var.password}<tab>${var.password}<tab><tab><spacebar><tab><tab><spacebar>",
  ]

  # No Apple account, the terms, no location, UTC, no analytics, no Screen Time, no Siri.
  to_desktop = {
    "15" = [
      "<wait120s><leftAltOn><f5><leftAltOff>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><spacebar>",
      "<wait10s><tab><tab>UTC<enter><leftShiftOn><tab><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><spacebar>",
      "<wait10s><tab><spacebar><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><spacebar>",
    ]
    "26" = [
      "<wait120s><leftAltOn><f5><leftAltOff>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><spacebar>",
      "<wait10s><tab><tab>UTC<enter><leftShiftOn><tab><tab><leftShiftOff><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><spacebar>",
      "<wait10s><leftShiftOn><tab><leftShiftOff><spacebar>",
      "<wait10s><tab><tab><spacebar>",
    ]
  }

  # Remote login, by System Settings over Spotlight and a terminal.
  remote_login = [
    "<wait10s><leftSuperOn><spacebar><leftSuperOff>Terminal<enter>",
    "<wait10s>sudo launchctl load -w /System/Library/LaunchDaemons/ssh.plist<enter>",
    "<wait5s>${var.password}<enter>",
    "<wait5s>echo '${var.user} ALL=(ALL) NOPASSWD: ALL' | sudo tee /etc/sudoers.d/${var.user}<enter>",
    "<wait5s><leftSuperOn>q<leftSuperOff>",
  ]
}

source "tart-cli" "base" {
  from_ipsw    = var.ipsw
  vm_name      = local.name
  cpu_count    = 4
  memory_gb    = 8
  disk_size_gb = var.disk_gb
  headless     = var.headless
  ssh_username = var.user
  ssh_password = var.password
  ssh_timeout  = "300s"
  # A new installation is still busy with itself when it first comes up.
  create_grace_time = "30s"
  # The recovery partition stands in the way of growing the disk.
  recovery_partition = "delete"
  boot_command = concat(local.to_account[var.macos], local.account, local.to_desktop[var.macos], local.remote_login)
}

build {
  sources = ["source.tart-cli.base"]

  provisioner "shell" {
    inline = [
      "set -eu",
      # The user is logged in after each start: simulators and the keychain need a session.
      "sudo sysadminctl -autologin set -userName '${var.user}' -password '${var.password}'",
      "sudo defaults write /Library/Preferences/com.apple.screensaver loginWindowIdleTime 0",
      "defaults -currentHost write com.apple.screensaver idleTime 0",
      "sudo systemsetup -setsleep Never 2>/dev/null",
      "sudo defaults write /Library/Preferences/com.apple.SoftwareUpdate AutomaticDownload -bool false",
      "sudo defaults write /Library/Preferences/com.apple.SoftwareUpdate AutomaticallyInstallMacOSUpdates -bool false",
      "sudo mdutil -a -i off",
      "mkdir -p ~/.ssh && chmod 700 ~/.ssh",
    ]
  }
}
