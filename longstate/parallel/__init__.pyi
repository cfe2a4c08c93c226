from longstate.parallel._shards import shard_time as shard_time
from longstate.parallel._shards import sum_gradients as sum_gradients
