// Which tile comes next, read off the group offsets in device memory: the host never knows how many
// rows a group has. Every warp of a persistent block walks the same list on its own; its 32 lanes
// look at 32 groups at once.
#pragma once

#include <cstdint>

namespace moebius::cuda {

struct TilePlace {
  int group;
  int row;          // first row of the tile, in the array of all rows
  int row_end;      // end of the group's rows
  int weight_tile;  // which weight tile of the group (of a cluster: which pair)
};

class TileWalk {
 public:
  // Groups' rows are offsets[g] .. offsets[g + 1] (offsets null: the same num_rows for each); a
  // group has `num_weight_tiles` tiles for every `token_rows` rows begun. Within a group, `width`
  // weight tiles are walked side by side, rows after rows, before the next `width`. With `wide`, a
  // group's last rows, where they are at most half of token_rows, have wide tiles: half as many,
  // each of the weights of two others.
  __device__ TileWalk(const int32_t* offsets, int num_rows, int num_groups, int num_weight_tiles,
                      int token_rows, int width, bool wide)
      : offsets_(offsets),
        num_rows_(num_rows),
        num_groups_(num_groups),
        num_weight_tiles_(num_weight_tiles),
        token_rows_(token_rows),
        width_(wide ? (width + 1) / 2 * 2 : width),
        wide_(wide) {
    LoadGroups(0, 0);
  }

  // Finds tile `index`; indices of one walk must not decrease. All lanes of a warp call together;
  // false past the end.
  __device__ bool Find(int index, TilePlace* place) {
    while (index >= last_) {
      if (first_group_ + 32 >= num_groups_) {
        return false;
      }
      LoadGroups(first_group_ + 32, last_);
    }
    const int lane = __ffs(__ballot_sync(kAll, index < end_)) - 1;
    const int begin = __shfl_sync(kAll, begin_, lane);
    const int rows = __shfl_sync(kAll, rows_, lane);
    const int row_tiles = RowTiles(rows);
    const int within = index - (__shfl_sync(kAll, end_, lane) - TilesOf(rows));
    const int wide_tiles = HasWide(rows) ? width_ / 2 : 0;  // of a strip, after its others
    const int strip = within / (row_tiles * width_ + wide_tiles);
    const int strip_width = min(width_, num_weight_tiles_ - strip * width_);
    const int rest = within - strip * row_tiles * width_ - strip * wide_tiles;
    const bool wide = wide_ && rest >= row_tiles * strip_width;
    const int row_tile = wide ? row_tiles : rest / strip_width;
    place->group = first_group_ + lane;
    place->row = begin + row_tile * token_rows_;
    place->row_end = begin + rows;
    place->weight_tile = strip * (wide ? width_ / 2 : width_) + rest - row_tile * strip_width;
    return true;
  }

  // Of all groups, once Find has said that there are no more.
  __device__ int num_tiles() const { return last_; }

 private:
  static constexpr uint32_t kAll = 0xffffffffu;

  // Of a group: how many tiles its rows fill one after the other, wide ones left out; whether its
  // last have wide ones; and all of its tiles.
  __device__ int RowTiles(int rows) const {
    return (rows + (wide_ ? token_rows_ / 2 : token_rows_) - 1) / token_rows_;
  }
  __device__ bool HasWide(int rows) const { return wide_ && rows > RowTiles(rows) * token_rows_; }
  __device__ int TilesOf(int rows) const {
    return RowTiles(rows) * num_weight_tiles_ + (HasWide(rows) ? (num_weight_tiles_ + 1) / 2 : 0);
  }

  __device__ void LoadGroups(int first_group, int first_tile) {
    const int lane = threadIdx.x % 32;
    const int group = first_group + lane;
    begin_ = 0;
    rows_ = offsets_ == nullptr && group < num_groups_ ? num_rows_ : 0;
    if (offsets_ != nullptr && group < num_groups_) {
      begin_ = offsets_[group];
      rows_ = offsets_[group + 1] - begin_;
    }
    int end = TilesOf(rows_);
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int before = __shfl_up_sync(kAll, end, step);
      end += lane >= step ? before : 0;
    }
    end_ = first_tile + end;
    last_ = __shfl_sync(kAll, end_, 31);
    first_group_ = first_group;
  }

  const int32_t* offsets_;
  int num_rows_;
  int num_groups_;
  int num_weight_tiles_;
  int token_rows_;
  int width_;
  bool wide_;
  int first_group_;
  int last_;   // end of the tiles of these 32 groups
  int begin_;  // this lane's group: first row, rows, end of its tiles
  int rows_;
  int end_;
};

}  // namespace moebius::cuda
